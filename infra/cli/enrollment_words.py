"""Participants and imports as `yidi enrollment` prints them."""

from __future__ import annotations

from rich.text import Text

from infra.cli.terminal import DIM
from infra.runtime.types import chinese
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import participant_pb2


def import_line(found: participant_pb2.Import) -> Text:
    """How far an import is, on one line."""
    state = chinese(participant_pb2.ImportState.DESCRIPTOR, found.state)
    line = Text(f"{state} ", style="green").append(
        f"{found.file_name}：{found.rows} 行，新增 {found.accepted}，已有 {found.unchanged}，"
        f"未收 {found.rejected}",
        style="default",
    )
    if found.state == participant_pb2.IMPORT_STATE_OPEN:
        line.append(f"；控制数 {found.totals.rows} 行，待送第 {found.next_part} 部分")
    return line.append(f"  {found.import_id}", style=DIM)


def rejected_line(row: participant_pb2.RejectedRow) -> Text:
    """A row not taken."""
    line = Text(f"第 {row.line} 行  ", style="default")
    if row.column:
        line.append(f"{row.column}  ", style="cyan")
    return line.append(row.cause)


def record(found: participant_pb2.ParticipantRecord) -> list[Text]:
    """A person, masked: a line each for person, insurance, status, qualification and the rest."""
    head = Text(f"{found.masked_name}  {found.masked_id_number}", style="bold")
    lines = [head.append(f"  {found.person_id}  第 {found.version} 版", style=DIM)]
    for relation in found.relations:
        facts = [
            relation.area,
            chinese(types_pb2.InsuranceType.DESCRIPTOR, relation.insurance),
            chinese(types_pb2.PersonClass.DESCRIPTOR, relation.person_class),
        ]
        facts += ["公务员"] if relation.civil_servant else []
        if relation.contracted_institution:
            facts.append(f"签约 {relation.contracted_institution}")
        lines.append(Text("  " + "  ".join(facts)))
        for spell in relation.statuses:
            state = chinese(participant_pb2.InsuredStatus.DESCRIPTOR, spell.status)
            to = f"（转往 {spell.to_area}）" if spell.to_area else ""
            lines.append(Text(f"    {_days(spell.start_date, spell.end_date)}  {state}{to}"))
        for one in relation.qualifications:
            chosen = "".join(f"  {each}" for each in one.chosen_institutions)
            days = _days(one.start_date, one.end_date)
            lines.append(
                Text(f"    {days}  慢特病 {one.disease_code}  认定地 {one.granted_area}{chosen}")
            )
    credentials = [
        (chinese(types_pb2.CredentialType.DESCRIPTOR, one.type) if one.type else "人员编号")
        + (f"（{one.replaced_on} 起停用）" if one.replaced_on else "")
        for one in found.credentials
    ]
    lines.append(Text(f"  凭证 {'、'.join(credentials)}"))
    for sharing in found.sharings:
        own = sharing.owner_person_id == found.person_id
        whose = (
            f"本人账户供 {sharing.user_person_id} 使用"
            if own
            else f"可用 {sharing.owner_person_id} 的账户"
        )
        lines.append(Text(f"  共济 {_days(sharing.start_date, sharing.end_date)}  {whose}"))
    return lines


def _days(first: str, last: str) -> str:
    return f"{first} 至 {last}" if last else f"{first} 起"
