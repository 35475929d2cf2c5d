"""`yidi enrollment`: who is insured where (参保), one by one and by whole files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.text import Text

from infra.cli.asking import every_page, held_by, show, with_clients
from infra.cli.client import Clients
from infra.cli.enrollment_words import import_line, record, rejected_line
from infra.cli.importing import CALL_S, ImportFile, Participants, read_totals, send
from infra.cli.options import (
    As,
    AsJson,
    Credential,
    Name,
    RequestId,
    SiteCode,
    choice,
    new_request_id,
    shown,
)
from infra.cli.parts import run_import
from infra.cli.terminal import DIM, err
from infra.local.processes import LocalNetworkError
from infra.local.supervisor import OPERATOR
from infra.runtime.errors import Reason
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import enrollment_pb2, participant_pb2, participant_pb2_grpc

T = TypeVar("T")
app = typer.Typer(
    help="Participants of the insured places (参保).", no_args_is_help=True, add_completion=False
)
Area = Annotated[str, typer.Option("--area", help="Pooling area of the insurance.")]
ImportId = Annotated[str, typer.Argument(metavar="ID", help="Id of the import.")]


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or tab-separated, UTF-8.")],
    area: Area,
    rows: Annotated[int | None, typer.Option(help="Control total: rows.")] = None,
    employees: Annotated[int | None, typer.Option(help="Control total: of employees.")] = None,
    residents: Annotated[int | None, typer.Option(help="Control total: of residents.")] = None,
    site: SiteCode = None,
    who: As = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """Import FILE; stopped at any time, the same command goes on. Exit code 1 when rows were
    rejected.

    Control totals come from the options, else from FILE.totals.json, else the file is counted.
    """
    file = ImportFile.open(path)
    totals = _control_totals(file, rows, employees, residents)
    console = err()

    def told(found: participant_pb2.Import) -> None:
        if console.is_terminal:
            console.print(f"{found.rows}/{totals.rows}", end="\r", style=DIM)

    async def act(clients: Clients) -> participant_pb2.Import:
        return await send(_at(clients, _site(clients, site, area), who), file, area, totals, told)

    done = run_import(act)
    show(done, import_line(done), as_json)
    if done.rejected:
        told_id = Text(f"未收的行 rejected rows: yidi enrollment rejected {done.import_id}")
        console.print(told_id, soft_wrap=True)
        raise typer.Exit(1)


def _control_totals(
    file: ImportFile, rows: int | None, employees: int | None, residents: int | None
) -> participant_pb2.ControlTotals:
    if rows is not None and employees is not None and residents is not None:
        return participant_pb2.ControlTotals(rows=rows, employees=employees, residents=residents)
    if (rows, employees, residents) != (None, None, None):
        raise LocalNetworkError("--rows, --employees and --residents are given together or not")
    beside = file.path.with_name(f"{file.path.name}.totals.json")
    if beside.exists():
        return read_totals(beside)
    totals = file.count()
    err().print(
        f"没有给出控制数，已先清点文件：{totals.rows} 行，职工 {totals.employees}，"
        f"居民 {totals.residents}。"
    )
    return totals


@app.command()
def imports(
    import_id: ImportId, site: SiteCode = None, who: As = OPERATOR, as_json: AsJson = False
) -> None:
    """Show how far an import is and what came of its rows."""

    async def ask(participants: Participants) -> participant_pb2.Import:
        request = participant_pb2.GetImportRequest(import_id=import_id)
        answer = await participants.GetImport(request, timeout=CALL_S)
        found: participant_pb2.Import = getattr(answer, "import")
        return found

    found = asyncio.run(_looked_for(site, who, ask))
    show(found, import_line(found), as_json)


@app.command()
def rejected(
    import_id: ImportId, site: SiteCode = None, who: As = OPERATOR, as_json: AsJson = False
) -> None:
    """List the rows of an import that were not taken: line, column, cause."""

    async def ask(participants: Participants) -> participant_pb2.ListRejectedRowsResponse:
        request = participant_pb2.ListRejectedRowsRequest(import_id=import_id, page_size=1_000)
        found: participant_pb2.ListRejectedRowsResponse = await every_page(
            participants.ListRejectedRows, request, CALL_S
        )
        return found

    found = asyncio.run(_looked_for(site, who, ask))
    show(found, [rejected_line(row) for row in found.rows], as_json)


@app.command("show")
def show_(
    area: Area,
    person_id: Annotated[str | None, typer.Option("--person", metavar="ID")] = None,
    credential: Credential = None,
    name: Name = None,
    personal_number: Annotated[
        str | None, typer.Option(help="人员编号 (psn_no), also a former one.")
    ] = None,
    site: SiteCode = None,
    who: As = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """Show a person of the area, masked: insurances, credentials, sharing."""
    given = [one for one in (person_id, credential, personal_number) if one is not None]
    if len(given) != 1:
        raise LocalNetworkError("say one of --person, --credential and --personal-number")
    request = participant_pb2.GetParticipantRequest(insured_area=area)
    if person_id is not None:
        request.person_id = person_id
    elif credential is not None:
        request.credential.CopyFrom(shown(credential))
        request.credential.name = name or ""
    else:
        request.personal_number = given[0]

    async def act(clients: Clients) -> participant_pb2.ParticipantRecord:
        participants = _at(clients, _site(clients, site, area), who)
        answer = await participants.GetParticipant(request, timeout=CALL_S)
        found: participant_pb2.ParticipantRecord = answer.record
        return found

    found = asyncio.run(with_clients(act))
    show(found, record(found), as_json)


@app.command()
def change(
    person_id: Annotated[str, typer.Argument(metavar="PERSON", help="Id of the person.")],
    area: Area,
    insurance: Annotated[
        int,
        choice(types_pb2.InsuranceType.DESCRIPTOR, "--insurance", "employee or resident."),
    ],
    day: Annotated[str, typer.Option("--day", metavar="DATE", help="First day that it holds.")],
    version: Annotated[int, typer.Option(help="As `yidi enrollment show` tells it.")],
    suspend: Annotated[bool, typer.Option("--suspend", help="暂停参保.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="恢复参保.")] = False,
    end: Annotated[bool, typer.Option("--end", help="终止参保: the first day without.")] = False,
    transfer_to: Annotated[
        str | None,
        typer.Option(metavar="AREA", help="转移接续: with the --person-class there."),
    ] = None,
    person_class: Annotated[
        int | None,
        choice(types_pb2.PersonClass.DESCRIPTOR, "--person-class", "Person class (人员类别)."),
    ] = None,
    civil_servant: Annotated[
        bool, typer.Option("--civil-servant", help="With --person-class: 公务员.")
    ] = False,
    institution: Annotated[
        str, typer.Option("--institution", help="With --person-class: 签约基层机构.")
    ] = "",
    new_card: Annotated[str | None, typer.Option(help="The new 社会保障卡.")] = None,
    new_personal_number: Annotated[str | None, typer.Option(help="The new 人员编号.")] = None,
    qualify: Annotated[
        str | None,
        typer.Option(
            metavar="CODE[:UNTIL[:PLACE[:INSTITUTION|…]]]",
            help="Grant a chronic qualification (门诊慢特病资格) from the day on.",
        ),
    ] = None,
    disqualify: Annotated[str | None, typer.Option(metavar="CODE", help="End one.")] = None,
    share_with: Annotated[
        str | None, typer.Option(metavar="PERSON", help="Who may use the account (家庭共济).")
    ] = None,
    unshare_with: Annotated[
        str | None, typer.Option(metavar="PERSON", help="Who may no longer use it.")
    ] = None,
    request_id: RequestId = None,
    site: SiteCode = None,
    who: As = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """Change one thing of a person's insurance; the record after it is shown."""
    asked: dict[str, Any] = {
        "suspend": suspend or None,
        "resume": resume or None,
        "end": end or None,
        "disqualify": disqualify,
        "share_with": share_with,
        "unshare_with": unshare_with,
    }
    if transfer_to is not None:
        asked["transfer"] = participant_pb2.Transfer(
            to_area=transfer_to, person_class=_class(person_class)
        )
    if civil_servant or institution or (person_class is not None and transfer_to is None):
        asked["attributes"] = participant_pb2.Attributes(
            person_class=_class(person_class),
            civil_servant=civil_servant,
            contracted_institution=institution,
        )
    if new_card is not None:
        asked["new_number"] = participant_pb2.NewNumber(social_security_card=new_card)
    elif new_personal_number is not None:
        asked["new_number"] = participant_pb2.NewNumber(personal_number=new_personal_number)
    if qualify is not None:
        asked["qualify"] = _qualification(qualify, day, area)
    told = {name: what for name, what in asked.items() if what is not None}
    if len(told) != 1 or None not in (new_card, new_personal_number):
        raise LocalNetworkError("say exactly one change; `yidi enrollment change --help` has them")
    request = participant_pb2.ChangeParticipantRequest(
        request_id=request_id or new_request_id(),
        person_id=person_id,
        version=version,
        insured_area=area,
        insurance=types_pb2.InsuranceType.ValueType(insurance),
        day=day,
        operator=who,
        **told,
    )

    async def act(clients: Clients) -> participant_pb2.ParticipantRecord:
        participants = _at(clients, _site(clients, site, area), who)
        answer = await participants.ChangeParticipant(request, timeout=CALL_S)
        found: participant_pb2.ParticipantRecord = answer.record
        return found

    found = asyncio.run(with_clients(act))
    show(found, record(found), as_json)


def _class(number: int | None) -> types_pb2.PersonClass.ValueType:
    return types_pb2.PersonClass.ValueType(number or 0)


def _qualification(text: str, day: str, area: str) -> enrollment_pb2.Qualification:
    disease, until, place, chosen = (*text.split(":", 3), "", "", "")[:4]
    return enrollment_pb2.Qualification(
        disease_code=disease,
        start_date=day,
        end_date=until,
        granted_area=place or area,
        chosen_institutions=chosen.split("|") if chosen else (),
    )


async def _looked_for(site: str | None, who: str, ask: Callable[[Participants], Awaitable[T]]) -> T:
    """The answer of the site that has the import, or the refusal of the last."""

    async def act(clients: Clients) -> T:
        missing = Reason.ERROR_REASON_IMPORT_STATE_WRONG
        _, found = await held_by(clients, site, missing, lambda one: ask(_at(clients, one, who)))
        return found

    return await with_clients(act)


def _at(clients: Clients, site: str, who: str) -> Participants:
    return clients.operator(participant_pb2_grpc.ParticipantServiceStub, site, "enrollment", who)


def _site(clients: Clients, site: str | None, area: str) -> str:
    found = site if site is not None else clients.site_of_area(area)
    if found is None:
        raise LocalNetworkError(f"{area} is no pooling area of this network: say --site CODE")
    return clients.chosen(found)[0]
