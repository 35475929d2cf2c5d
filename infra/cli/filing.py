"""`yidi filing`: filings of people (备案), for institutions that guide them and for the agency."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from infra.cli import filing_agency, filing_rules
from infra.cli.filing_asking import (
    AN_OPERATOR,
    Area,
    As,
    AsJson,
    AskFile,
    Caller,
    Channel,
    FilingId,
    Insurance,
    Kind,
    Materials,
    Place,
    SiteCode,
    Start,
    Version,
    asked,
    tell,
    tell_applicant,
    written,
)
from infra.cli.filing_words import Names, entitlement, filing_line, guidance, record
from infra.cli.options import Credential, Name, RequestId, choice, new_request_id
from infra.cli.terminal import DIM, out, show_refusal
from infra.runtime.errors import Refusal
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2

app = typer.Typer(
    help="Filings for care elsewhere (异地就医备案).", no_args_is_help=True, add_completion=False
)
app.add_typer(filing_agency.app)
app.add_typer(filing_rules.app, name="rules")


@app.command()
def apply(
    file: AskFile = None,
    credential: Credential = None,
    name: Name = None,
    area: Area = None,
    insurance: Insurance = None,
    kind: Kind = None,
    channel: Channel = None,
    place: Place = None,
    start: Start = None,
    material: Materials = None,
    referral_institution: Annotated[
        str | None, typer.Option(help="Who refers (转出机构); of an upload the caller.")
    ] = None,
    disease: Annotated[
        str | None, typer.Option(help="Disease of a referral; any when left out.")
    ] = None,
    earlier: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The referral before, of the same disease."),
    ] = None,
    request_id: RequestId = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """File a person for care elsewhere (备案申请); FILE is an `Application`."""
    ask = written(
        file,
        desk_pb2.Application(),
        request_id=request_id,
        kind=kind,
        channel=channel,
        care_place=place,
        start_date=start,
        materials=material,
        referral_institution=referral_institution,
        disease_code=disease,
        earlier_filing=earlier,
    )
    caller = Caller.read(who)
    uploads = ask.channel == types_pb2.FILING_CHANNEL_HOSPITAL_UPLOAD
    if caller.institution and uploads and not ask.referral_institution:
        ask.referral_institution = caller.name
    tell_applicant(ask.applicant, credential, name, area, insurance)
    _changed("ApplyFiling", "application", ask, who, site, as_json)


@app.command()
def supplement(
    file: AskFile = None,
    credential: Credential = None,
    name: Name = None,
    area: Area = None,
    insurance: Insurance = None,
    filing: FilingId = None,
    version: Version = None,
    channel: Channel = None,
    material: Materials = None,
    request_id: RequestId = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Add material to a filing on a promise (补充材料); FILE is a `Supplement`."""
    ask = written(
        file,
        desk_pb2.Supplement(),
        request_id=request_id,
        filing_id=filing,
        version=version,
        channel=channel,
        materials=material,
    )
    tell_applicant(ask.applicant, credential, name, area, insurance)
    _changed("SupplementFiling", "supplement", ask, who, site, as_json)


@app.command()
def change(
    file: AskFile = None,
    credential: Credential = None,
    name: Name = None,
    area: Area = None,
    insurance: Insurance = None,
    filing: FilingId = None,
    version: Version = None,
    channel: Channel = None,
    place: Place = None,
    start: Start = None,
    material: Materials = None,
    request_id: RequestId = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Change place or first day (变更); the insured area itself as --place is back home.

    FILE is a `Change`. A new filing replaces the changed one, which ends the day before.
    """
    ask = written(
        file,
        desk_pb2.Change(),
        request_id=request_id,
        filing_id=filing,
        version=version,
        channel=channel,
        care_place=place,
        start_date=start,
        materials=material,
    )
    tell_applicant(ask.applicant, credential, name, area, insurance)
    _changed("ChangeFiling", "change", ask, who, site, as_json)


@app.command()
def cancel(
    file: AskFile = None,
    credential: Credential = None,
    name: Name = None,
    area: Area = None,
    insurance: Insurance = None,
    filing: FilingId = None,
    version: Version = None,
    channel: Channel = None,
    last_day: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="End it after this day (终止); else void (取消)."),
    ] = None,
    cause: Annotated[str | None, typer.Option(help="Why.")] = None,
    request_id: RequestId = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Void a filing from its first day (取消), or end it with --last-day (终止).

    FILE is a `Cancellation`.
    """
    ask = written(
        file,
        desk_pb2.Cancellation(),
        request_id=request_id,
        filing_id=filing,
        version=version,
        channel=channel,
        last_day=last_day,
        cause=cause,
    )
    tell_applicant(ask.applicant, credential, name, area, insurance)
    _changed("CancelFiling", "cancellation", ask, who, site, as_json)


def _changed(rpc: str, field: str, ask: Any, who: str, site: str | None, as_json: bool) -> None:
    """Send what makes or changes a filing and show the filing that came of it."""
    ask.request_id = ask.request_id or new_request_id()
    response, names = asked(who, site, ask.applicant.insured_area, rpc, **{field: ask})
    if as_json:
        _print_json(response)
        return
    console, answer = out(), response.answer
    console.print(filing_line(answer.filing, names), soft_wrap=True)
    for step in answer.next_steps:
        console.print(f"  · {step}", soft_wrap=True)
    console.print(f"请求号 request_id {ask.request_id}", style=DIM, soft_wrap=True)


@app.command("list")
def list_(
    file: AskFile = None,
    credential: Credential = None,
    name: Name = None,
    area: Area = None,
    insurance: Insurance = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """List a person's filings, newest first, each with its history; FILE is a `Listing`."""
    ask = written(file, desk_pb2.Listing())
    tell_applicant(ask.applicant, credential, name, area, insurance)
    response, names = asked(who, site, ask.applicant.insured_area, "ListFilings", listing=ask)
    if as_json:
        _print_json(response)
        return
    if not response.answer.filings:
        out().print("没有备案 No filing.", style="yellow")
    for one in response.answer.filings:
        out().print(record(one, names), soft_wrap=True)


@app.command()
def check(
    file: AskFile = None,
    credential: Credential = None,
    name: Name = None,
    area: Area = None,
    insurance: Insurance = None,
    place: Place = None,
    care_type: Annotated[
        int | None, choice(types_pb2.CareType.DESCRIPTOR, "--care-type", "Kind of care (医疗类别).")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="DATE", help="Admission, or the day of the visit.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="DATE", help="Discharge; the first day when left out.")
    ] = None,
    inpatient_type: Annotated[
        int | None,
        choice(types_pb2.InpatientType.DESCRIPTOR, "--inpatient-type", "Of a stay (住院类型)."),
    ] = None,
    emergency_referral: Annotated[
        int | None,
        choice(
            types_pb2.EmergencyReferral.DESCRIPTOR,
            "--emergency-referral",
            "Of an outpatient visit (急诊转诊标志).",
        ),
    ] = None,
    disease: Annotated[
        str | None, typer.Option(help="Disease code of outpatient chronic care (门诊慢特病).")
    ] = None,
    institution: Annotated[
        str | None, typer.Option(help="Where the visit is; the caller when it is one.")
    ] = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a visit would be entitled now, why, and how a filing can still be made.

    FILE is a `VisitCheck`. The exit code is 1 where the visit is not entitled.
    """
    ask = written(file, desk_pb2.VisitCheck(), institution=institution)
    tell_applicant(ask.applicant, credential, name, area, insurance)
    tell(
        ask.visit,
        care_area=place,
        care_type=care_type,
        start_date=start,
        end_date=end,
        inpatient_type=inpatient_type,
        emergency_referral=emergency_referral,
        disease_code=disease,
        insured_area=ask.visit.insured_area or ask.applicant.insured_area,
        insurance=ask.visit.insurance or ask.applicant.insurance,
    )
    ask.visit.end_date = ask.visit.end_date or ask.visit.start_date
    response, names = asked(who, site, ask.applicant.insured_area, "CheckFiling", check=ask)
    if as_json:
        _print_json(response)
    else:
        _show_check(response.answer, names)
    if response.answer.HasField("refusal"):
        raise typer.Exit(1)


def _show_check(answer: desk_pb2.VisitCheckAnswer, names: Names) -> None:
    console = out()
    if answer.HasField("entitlement"):
        console.print(entitlement(answer.entitlement))
    else:
        show_refusal(Refusal.from_status(answer.refusal), console)
    if answer.HasField("guidance"):
        console.print()
        console.print(guidance(answer.guidance))


@app.command("guidance")
def guidance_(
    file: AskFile = None,
    area: Area = None,
    insurance: Insurance = None,
    place: Place = None,
    kind: Kind = None,
    who: As = AN_OPERATOR,
    site: SiteCode = None,
    as_json: AsJson = False,
) -> None:
    """Say what an area asks for: materials, channels, validity, lock-in, late filing, telephone.

    FILE is a `GuidanceQuestion`.
    """
    ask = written(
        file,
        desk_pb2.GuidanceQuestion(),
        insured_area=area,
        insurance=insurance,
        care_place=place,
        kind=kind,
    )
    response, _ = asked(who, site, ask.insured_area, "GetGuidance", question=ask)
    if as_json:
        _print_json(response)
    else:
        out().print(guidance(response.guidance))


def _print_json(response: Message) -> None:
    typer.echo(json_format.MessageToJson(response, ensure_ascii=False))
