"""Filings, entitlements and guidance as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.descriptor import EnumDescriptor
from rich.text import Text

from infra.cli.terminal import DIM, local_time
from infra.runtime.types import chinese
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2

Names = Mapping[str, str]
"""Code → name of the places of the network."""
_STYLES = {
    filing_pb2.FILING_STATE_PENDING: "yellow",
    filing_pb2.FILING_STATE_ACCEPTED: "green",
    filing_pb2.FILING_STATE_REFUSED: "red",
}
_PROMISED = types_pb2.COMMITMENT_STATE_PROMISED


def filing_line(filing: filing_pb2.Filing, names: Names) -> Text:
    """One filing on one line: state, kind, place, days, version and id."""
    line = Text(chinese(filing_pb2.FilingState.DESCRIPTOR, filing.state), style="bold")
    line.stylize(_STYLES.get(filing.state, DIM))
    last = f"至 {filing.end_date}" if filing.end_date else "起长期有效"
    parts = [
        chinese(types_pb2.FilingKind.DESCRIPTOR, filing.kind),
        f"{names.get(filing.insured_area, filing.insured_area)} → "
        + names.get(filing.care_place, filing.care_place),
        f"{filing.start_date} {last}",
    ]
    if filing.commitment == _PROMISED:
        parts.append(chinese(types_pb2.CommitmentState.DESCRIPTOR, _PROMISED))
    if filing.referral_institution:
        parts.append(f"转出机构 {filing.referral_institution}")
    if filing.disease_code:
        parts.append(f"病种 {filing.disease_code}")
    if filing.due_date:
        parts.append(f"应于 {filing.due_date} 前办结")
    for part in parts:
        line.append(f"  {part}")
    return line.append(f"  第 {filing.version} 版 {filing.filing_id}", style=DIM)


def record(one: desk_pb2.FilingRecord, names: Names) -> Text:
    """A filing and, below it, what happened to it."""
    return Text("\n").join([filing_line(one.filing, names), *map(_event, one.history)])


def _event(event: desk_pb2.FilingEvent) -> Text:
    parts = [
        local_time(event.at, "%Y-%m-%d %H:%M:%S"),
        chinese(desk_pb2.FilingAction.DESCRIPTOR, event.action),
        chinese(types_pb2.FilingChannel.DESCRIPTOR, event.channel) if event.channel else "",
        event.actor.removeprefix("spiffe://yidi/site/"),
        event.cause,
        f"第 {event.version} 版",
    ]
    return Text("    " + "  ".join(filter(None, parts)), style=DIM)


def entitlement(found: filing_pb2.Entitlement) -> Text:
    """Basis and benefit class, then each reason with its clause and next step."""
    head = Text("✓ ", style="green")
    head.append(chinese(types_pb2.FilingBasis.DESCRIPTOR, found.basis), style="bold")
    head.append("  ·  ")
    head.append(chinese(types_pb2.BenefitClass.DESCRIPTOR, found.benefit_class), style="bold")
    if found.filing_id:
        head.append(f"  备案 {found.filing_id}", style=DIM)
    lines = [head]
    for reason in found.reasons:
        lines.append(Text(f"  {reason.text}").append(f"  {reason.clause}", style=DIM))
        if reason.next_step:
            lines.append(Text(f"    下一步 Next step: {reason.next_step}"))
    return Text("\n").join(lines)


def guidance(told: desk_pb2.Guidance) -> Text:
    """What an area asks for, kind by kind; what it does not say is left out."""
    lines = [Text(f"备案指引：{told.area_name}", style="bold")]
    lines += _facts({"无需备案": told.exemption}, "  ")
    for kind in told.kinds:
        lines.append(Text(f"  {chinese(types_pb2.FilingKind.DESCRIPTOR, kind.kind)}", style="cyan"))
        lines += _facts(_of_kind(kind), "    ")
    contact = {"电话": told.telephone, "经办机构": told.office, "手工报销": told.manual_claim}
    return Text("\n").join([*lines, *_facts(contact, "  ")])


def _of_kind(kind: desk_pb2.KindGuidance) -> dict[str, str]:
    material = filing_pb2.Material.DESCRIPTOR
    any_of = _listed(material, kind.any_of)
    promise = "，可先作个人承诺后补" if kind.promise else ""
    sources = (
        f"{source.citation}（{chinese(types_pb2.Provenance.DESCRIPTOR, source.provenance)}）"
        for source in kind.sources
    )
    return {
        "办理对象": kind.eligible,
        "办理渠道": _listed(types_pb2.FilingChannel.DESCRIPTOR, kind.channels),
        "必需材料": _listed(material, kind.required),
        "任选其一": any_of and any_of + promise,
        "有效期": kind.validity,
        "补办": kind.late_filing,
        "变更取消": kind.lock_in,
        "办理时限": kind.handling,
        "依据": "；".join(sources),
    }


def _listed(enum: EnumDescriptor, numbers: Iterable[int]) -> str:
    return "、".join(chinese(enum, number) for number in numbers)


def _facts(facts: Mapping[str, str], indent: str) -> Iterator[Text]:
    for label, fact in facts.items():
        if fact:
            yield Text.assemble(indent, (f"{label}：", DIM), fact)
