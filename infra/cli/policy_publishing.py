"""How policy documents come into force on a running network: `yidi policy draft` to `coverage`.

A document is named by the id of its draft, or once published by AREA/INSURANCE/VERSION.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from infra.cli.asking import echo, every_page, held_by, with_clients
from infra.cli.client import Clients
from infra.cli.options import As, AsJson, RequestId, SiteCode, new_request_id
from infra.cli.pairs import CALL_S
from infra.cli.terminal import DIM, local_time, out, read_instant
from infra.local.processes import LocalNetworkError
from infra.local.state import default_home
from infra.local.supervisor import OPERATOR
from infra.runtime.errors import Reason
from infra.runtime.types import chinese, short_name
from services.policy.domain.facts import INSURANCE_CODES
from services.policy.reading import NotReadable, read, read_text
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.policy.v1 import policy_pb2, policy_pb2_grpc, publishing_pb2, publishing_pb2_grpc

_FORM = "%Y-%m-%d %H:%M"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TYPES = {
    "employee": types_pb2.INSURANCE_TYPE_EMPLOYEE,
    "resident": types_pb2.INSURANCE_TYPE_RESIDENT,
}
_INSURANCES = {**_TYPES, **{INSURANCE_CODES[name]: value for name, value in _TYPES.items()}}
_STATES = publishing_pb2.PolicyState.DESCRIPTOR
T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, add_completion=False)
PolicyId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the draft, or AREA/INSURANCE/VERSION.")
]
Comment = Annotated[str, typer.Option("--comment", help="The reasons; kept in the history.")]
Publishing: TypeAlias = Any
"""A stub of `PublishingService` over asyncio."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The publishing service of one site, called as one of its operators."""

    clients: Clients
    who: str

    def at(self, site: str) -> Publishing:
        """The service of `site`."""
        return self.clients.operator(
            publishing_pb2_grpc.PublishingServiceStub, site, "policy", self.who
        )

    async def find(
        self, name: str, site: str | None
    ) -> tuple[Publishing, publishing_pb2.GetPolicyResponse]:
        """Where a document is, and the document; POLICY_VERSION_NOT_FOUND when nowhere."""
        selector = selector_of(name)
        if site is None and selector.HasField("published"):
            site = _site_of(self.clients, selector.published.insured_area)
        asked = publishing_pb2.GetPolicyRequest(policy=selector)
        at, found = await held_by(
            self.clients,
            site,
            Reason.ERROR_REASON_POLICY_VERSION_NOT_FOUND,
            lambda each: self.at(each).GetPolicy(asked, timeout=CALL_S),
        )
        return self.at(at), found


def selector_of(name: str) -> publishing_pb2.PolicySelector:
    """What `name` means; raise `LocalNetworkError` when it means nothing."""
    if _UUID.fullmatch(name):
        return publishing_pb2.PolicySelector(draft_id=name)
    area, _, rest = name.partition("/")
    insurance, _, version = rest.partition("/")
    if insurance not in _INSURANCES or not version:
        raise LocalNetworkError(
            f"{name} names no document: give the id of a draft, or AREA/INSURANCE/VERSION, e.g. "
            "440800/employee/2023-02-03.2"
        )
    key = publishing_pb2.PolicyKey(
        insured_area=area, insurance=_INSURANCES[insurance], version=version
    )
    return publishing_pb2.PolicySelector(published=key)


def _site_of(clients: Clients, area: str) -> str:
    site = clients.site_of_area(area)
    if site is None:
        raise LocalNetworkError(f"{area} is no pooling area of this network")
    return site


@app.command()
def draft(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The document (YAML).")],
    comment: Comment = "",
    site: SiteCode = None,
    who: As = OPERATOR,
    request_id: RequestId = None,
    as_json: AsJson = False,
) -> None:
    """Store FILE as a draft for another person's review; with errors nothing is stored."""
    answer = asyncio.run(_draft(file, comment, site, who, request_id or new_request_id()))
    if as_json:
        echo(answer)
    else:
        for found in answer.findings:
            severity = chinese(publishing_pb2.Severity.DESCRIPTOR, found.severity)
            out().print(f"{file}:{found.line} {severity} {found.path} {found.text}", soft_wrap=True)
    if not answer.HasField("policy"):
        if not as_json:
            out().print("没有起草：请先更正以上错误。", style="bold red")
        raise typer.Exit(1)
    if not as_json:
        _tell("已起草，待另一人复核", answer.policy)


async def _draft(
    file: Path, comment: str, site: str | None, who: str, request_id: str
) -> publishing_pb2.CreateDraftResponse:
    try:
        text = read_text(file)
        area = read(text).data.get("area")
    except NotReadable as error:
        raise LocalNetworkError(f"{file}:{error.line}: {error.fault}") from error
    if not isinstance(area, str):
        raise LocalNetworkError(f'{file} names no pooling area: write area: "440800", in quotes')
    async with Clients.connect(default_home()) as clients:
        (site,) = clients.chosen(site or _site_of(clients, area))
        asked = publishing_pb2.CreateDraftRequest(
            request_id=request_id, written=text, insured_area=area, comment=comment
        )
        answer: publishing_pb2.CreateDraftResponse = (
            await Desk(clients, who).at(site).CreateDraft(asked, timeout=CALL_S)
        )
        return answer


@app.command()
def review(
    policy: PolicyId,
    comment: Comment,
    approve: Annotated[
        bool | None, typer.Option("--approve/--refuse", help="The verdict; it stands for good.")
    ] = None,
    site: SiteCode = None,
    who: As = OPERATOR,
    request_id: RequestId = None,
    as_json: AsJson = False,
) -> None:
    """Approve or refuse a draft, as another person than its author."""
    if approve is None:
        raise LocalNetworkError("say --approve or --refuse")
    verdict = approve

    async def act(clients: Clients) -> publishing_pb2.ReviewDraftResponse:
        stub, found = await Desk(clients, who).find(policy, site)
        asked = publishing_pb2.ReviewDraftRequest(
            request_id=request_id or new_request_id(),
            draft_id=found.policy.draft_id,
            hash=found.policy.hash,
            approve=verdict,
            comment=comment,
        )
        answer: publishing_pb2.ReviewDraftResponse = await stub.ReviewDraft(asked, timeout=CALL_S)
        return answer

    answer = asyncio.run(with_clients(act))
    if as_json:
        echo(answer)
        return
    _tell("复核通过，可以发布" if approve else "复核未通过，请重新起草", answer.policy)


@app.command()
def publish(
    policy: PolicyId,
    activate_at: Annotated[
        str | None,
        typer.Option("--activate-at", help='When it begins to be used, "2026-12-01 06:00".'),
    ] = None,
    comment: Comment = "",
    site: SiteCode = None,
    who: As = OPERATOR,
    request_id: RequestId = None,
    as_json: AsJson = False,
) -> None:
    """Publish an approved draft; it is used 60 s later unless --activate-at says when."""
    begins = None if activate_at is None else read_instant(activate_at, "--activate-at")

    async def act(clients: Clients) -> publishing_pb2.PublishPolicyResponse:
        stub, found = await Desk(clients, who).find(policy, site)
        asked = publishing_pb2.PublishPolicyRequest(
            request_id=request_id or new_request_id(),
            draft_id=found.policy.draft_id,
            activate_time=begins,
            comment=comment,
        )
        answer: publishing_pb2.PublishPolicyResponse = await stub.PublishPolicy(
            asked, timeout=CALL_S
        )
        return answer

    answer = asyncio.run(with_clients(act))
    if as_json:
        echo(answer)
        return
    _tell(f"已发布，{local_time(answer.policy.activate_time, _FORM)} 起启用", answer.policy)


@app.command()
def retire(
    policy: PolicyId,
    from_day: Annotated[
        str, typer.Option("--from", metavar="DAY", help="First day on which it no longer holds.")
    ],
    comment: Comment,
    site: SiteCode = None,
    who: As = OPERATOR,
    request_id: RequestId = None,
    as_json: AsJson = False,
) -> None:
    """End a published version for visits from DAY on, as another person than its publisher."""

    async def act(clients: Clients) -> publishing_pb2.RetirePolicyResponse:
        stub, found = await Desk(clients, who).find(policy, site)
        asked = publishing_pb2.RetirePolicyRequest(
            request_id=request_id or new_request_id(),
            published=publishing_pb2.PolicyKey(
                insured_area=found.policy.insured_area,
                insurance=found.policy.insurance,
                version=found.policy.version,
            ),
            from_day=from_day,
            comment=comment,
        )
        answer: publishing_pb2.RetirePolicyResponse = await stub.RetirePolicy(asked, timeout=CALL_S)
        return answer

    answer = asyncio.run(with_clients(act))
    if as_json:
        echo(answer)
        return
    _tell(f"已废止，{answer.policy.retired_from} 起的业务不再适用", answer.policy)


@app.command("list")
def list_(
    area: Annotated[str, typer.Option("--area", help="Pooling area; all when left out.")] = "",
    site: SiteCode = None,
    who: As = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """List drafts and published versions with their states."""

    async def ask(clients: Clients) -> list[publishing_pb2.PolicyVersion]:
        found: list[publishing_pb2.PolicyVersion] = []
        for one in _asked_sites(clients, area, site):
            asked = publishing_pb2.ListPoliciesRequest(insured_area=area)
            answer = await every_page(Desk(clients, who).at(one).ListPolicies, asked, CALL_S)
            found += answer.policies
        return found

    policies = asyncio.run(with_clients(ask))
    if as_json:
        echo(publishing_pb2.ListPoliciesResponse(policies=policies))
        return
    table = table_of("文件 policy", "状态 state", "生效 in effect", "名称 title")
    for each in policies:
        table.add_row(_name(each), chinese(_STATES, each.state), _period(each), each.title)
    out().print(table)


@app.command()
def show(
    policy: PolicyId, site: SiteCode = None, who: As = OPERATOR, as_json: AsJson = False
) -> None:
    """Show a document as it was written, and what has happened to it."""

    async def ask(clients: Clients) -> publishing_pb2.GetPolicyResponse:
        return (await Desk(clients, who).find(policy, site))[1]

    found = asyncio.run(with_clients(ask))
    if as_json:
        echo(found)
        return
    typer.echo(found.written or found.canonical)
    _tell(chinese(_STATES, found.policy.state), found.policy)


@app.command()
def coverage(
    area: Annotated[str, typer.Option("--area", help="Pooling area; all when left out.")] = "",
    site: SiteCode = None,
    who: As = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """Say which areas, insurances and benefits are covered, since when and how well founded."""

    async def ask(clients: Clients) -> list[policy_pb2.CoveredPolicy]:
        found: list[policy_pb2.CoveredPolicy] = []
        for one in _asked_sites(clients, area, site):
            stub = clients.operator(policy_pb2_grpc.PolicyServiceStub, one, "policy", who)
            asked = policy_pb2.GetCoverageRequest(insured_area=area)
            found += (await stub.GetCoverage(asked, timeout=CALL_S)).policies
        return found

    policies = asyncio.run(with_clients(ask))
    if as_json:
        echo(policy_pb2.GetCoverageResponse(policies=policies))
        return
    table = table_of("文件 policy", "生效 in effect", "来源 provenance", "待遇 benefits")
    for each in policies:
        care_types = types_pb2.CareType.DESCRIPTOR
        benefits = "；".join(
            "、".join(chinese(care_types, one) for one in benefit.care_types)
            + ("" if benefit.funds_pay else "（基金不付）")
            for benefit in each.benefits
        )
        provenance = chinese(types_pb2.Provenance.DESCRIPTOR, each.policy.provenance)
        table.add_row(_name(each.policy), _period(each), provenance, f"{each.title}：{benefits}")
    out().print(table)


def _asked_sites(clients: Clients, area: str, site: str | None) -> list[str]:
    return clients.chosen(site or (_site_of(clients, area) if area else None))


def table_of(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table as the desk prints them."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", justify="right" if name in right else "left")
    return table


def _name(policy: publishing_pb2.PolicyVersion | envelope_pb2.PolicyReference) -> str:
    """As the commands take it: the draft's id until it is published."""
    if isinstance(policy, publishing_pb2.PolicyVersion):
        if not policy.publication_number:
            return policy.draft_id
        area = policy.insured_area
    else:
        area = policy.area
    insurance = short_name(types_pb2.InsuranceType.DESCRIPTOR, policy.insurance)
    return f"{area}/{insurance}/{policy.version}"


def _period(policy: publishing_pb2.PolicyVersion | policy_pb2.CoveredPolicy) -> str:
    ends = f"{policy.retired_from} 起废止" if policy.retired_from else policy.effective_to
    return f"{policy.effective_from} 至 {ends}" if ends else f"{policy.effective_from} 起"


def _tell(what: str, policy: publishing_pb2.PolicyVersion) -> None:
    """What came of an act, and the history so far."""
    console = out()
    console.print(f"{what}：{policy.title} {policy.version}", style="bold", soft_wrap=True)
    for event in policy.history:
        who = event.actor.rpartition("/")[2]
        line = Text(f"  {local_time(event.time, _FORM)}  {chinese(_STATES, event.state)}  {who}")
        console.print(line.append(f"  {event.comment}", style=DIM), soft_wrap=True)
    console.print(f"  {_name(policy)}  sha256 {policy.hash.hex()}", style=DIM, soft_wrap=True)
