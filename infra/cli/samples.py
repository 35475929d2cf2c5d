"""The sample people: registered by `yidi up`, so that the sample visits settle at once.

They are synthetic and say so in their names. Their e-credential tokens are fixed, because the
files in `infra/local/samples` carry them. Ids are derived from the tokens, so that registering
again changes nothing.
"""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from google.protobuf import json_format
from google.rpc import status_pb2

import infra.local
import services.catalog
from infra.cli.client import Clients
from infra.cli.sample_mappings import submit_sample_mappings
from infra.local.certificates import issue_client
from infra.local.people import check_digit
from infra.local.processes import LocalNetworkError
from infra.local.supervisor import Progress
from infra.runtime.clock import SystemClock, instant, monotonic_us
from infra.runtime.errors import Refusal
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import filing_pb2, filing_pb2_grpc
from yidi.gateway.v1 import gateway_pb2, gateway_pb2_grpc

VISITS = Path(infra.local.__file__).parent / "samples"
"""Folder of the sample visits: `SettleRequest` as proto JSON."""
_INSTITUTIONS = Path(services.catalog.__file__).parent / "samples"
_CALL_S = 5.0
READY_S = 20.0
"""How long a new network may take until a visit can be quoted over every hop."""


@dataclass(frozen=True, slots=True)
class SamplePerson:
    """One synthetic participant with a filing that has no end."""

    token: str
    name: str
    county: str
    born: date
    area: str
    site: str
    person_class: types_pb2.PersonClass.ValueType
    filing_kind: types_pb2.FilingKind.ValueType
    care_place: str
    filed_on: str = "2025-01-06"

    @property
    def id_number(self) -> str:
        """An ID number with a valid check digit (GB 11643-1999)."""
        first_17 = f"{self.county}{self.born:%Y%m%d}001"
        return first_17 + check_digit(first_17)

    @property
    def id(self) -> str:
        """The request id of the registration and of the filing."""
        return str(uuid5(NAMESPACE_URL, f"yidi:sample:{self.token}"))


PEOPLE = (
    SamplePerson(
        token="sample-zhanjiang-retired",
        name="样例甲（合成）",
        county="440802",
        born=date(1955, 3, 1),
        area="440800",
        site="440000",
        person_class=types_pb2.PERSON_CLASS_RETIRED,
        filing_kind=types_pb2.FILING_KIND_RETIRED_RESETTLED,
        care_place="110000",
    ),
    SamplePerson(
        token="sample-zhanjiang-employed",
        name="样例乙（合成）",
        county="440803",
        born=date(1985, 6, 15),
        area="440800",
        site="440000",
        person_class=types_pb2.PERSON_CLASS_EMPLOYED,
        filing_kind=types_pb2.FILING_KIND_POSTED_WORKER,
        care_place="110000",
    ),
    SamplePerson(
        token="sample-jining-employed",
        name="样例丙（合成）",
        county="370811",
        born=date(1979, 9, 9),
        area="370800",
        site="370000",
        person_class=types_pb2.PERSON_CLASS_EMPLOYED,
        filing_kind=types_pb2.FILING_KIND_POSTED_WORKER,
        care_place="440100",
    ),
    SamplePerson(
        token="sample-beijing-employed",
        name="样例丁（合成）",
        county="110105",
        born=date(1990, 12, 24),
        area="110000",
        site="110000",
        person_class=types_pb2.PERSON_CLASS_EMPLOYED,
        filing_kind=types_pb2.FILING_KIND_LONG_TERM_RESIDENT,
        care_place="370100",
    ),
)


def sample_visits() -> dict[str, gateway_pb2.SettleRequest]:
    """The sample visits by file name."""
    return {
        path.name: json_format.Parse(path.read_text("utf-8"), gateway_pb2.SettleRequest())
        for path in sorted(VISITS.glob("*.json"))
    }


def finish_start(home: Path, on_progress: Progress) -> None:
    """Complete the start of a network: sample people, certificates, one quote over every hop.

    To be called when its processes are healthy; calling it again changes nothing.
    """
    asyncio.run(_finish_start(home, on_progress))


async def _finish_start(home: Path, on_progress: Progress) -> None:
    async with Clients.connect(home, starting=True) as clients:
        on_progress("registering the sample people")
        await register(clients, PEOPLE)
        issue_certificates(clients)
        on_progress("quoting a visit over every hop")
        for name, request in sample_visits().items():
            await _quote_until_answered(clients, name, request)
        await submit_sample_mappings(clients)


async def register(clients: Clients, people: Iterable[SamplePerson]) -> None:
    """Register the people of the sites that run, and their filings."""
    for person in people:
        if person.site not in clients.sites:
            continue
        enrollment = clients.operator(
            enrollment_pb2_grpc.EnrollmentServiceStub, person.site, "enrollment"
        )
        registration = enrollment_pb2.RegisterItem(
            id=person.id,
            name=person.name,
            id_number=person.id_number,
            electronic_token=person.token,
            insured_area=person.area,
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            person_class=person.person_class,
            active_from="2020-01-01",
        )
        registered = await enrollment.BatchRegister(
            enrollment_pb2.BatchRegisterRequest(items=[registration]), timeout=_CALL_S
        )
        _check(registered.results[0].HasField("error"), registered.results[0].error)
        filing = clients.operator(filing_pb2_grpc.FilingServiceStub, person.site, "filing")
        wanted = filing_pb2.CreateFilingItem(
            id=person.id,
            credential=visit_pb2.Credential(
                type=types_pb2.CREDENTIAL_TYPE_ELECTRONIC, number=person.token
            ),
            insured_area=person.area,
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            kind=person.filing_kind,
            channel=types_pb2.FILING_CHANNEL_NATIONAL_APP,
            care_place=person.care_place,
            start_date=person.filed_on,
            filed_on=person.filed_on,
            commitment=types_pb2.COMMITMENT_STATE_MATERIAL_COMPLETE,
        )
        filed = await filing.BatchCreateFilings(
            filing_pb2.BatchCreateFilingsRequest(items=[wanted]), timeout=_CALL_S
        )
        _check(filed.results[0].HasField("error"), filed.results[0].error)


def sample_institutions(site: str) -> Iterator[tuple[str, str]]:
    """Code and name of every institution in the sample catalogue of `site`."""
    path = _INSTITUTIONS / site / "institutions.csv"
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield row["code"], row["name"]


def issue_certificates(clients: Clients) -> None:
    """Make the certificate of every sample institution of the sites that run."""
    now = instant(SystemClock())
    for site, at in clients.sites.items():
        for code, _ in sample_institutions(site):
            issue_client(at.tls.parent, site, "institution", code, now=now)


async def _quote_until_answered(
    clients: Clients, name: str, request: gateway_pb2.SettleRequest
) -> None:
    """Each province follows the nation's directory from its start on; wait until it has it."""
    care, insured = request.bill.visit.care_area, request.bill.visit.insured_area
    site = clients.site_of_area(care)
    if site is None or clients.site_of_area(insured) is None:
        return
    asked = gateway_pb2.QuoteRequest(credential=request.credential, bill=request.bill)
    until = monotonic_us() + int(READY_S * 1e6)
    for door in range(len(clients.sites[site].edge)):
        stub = clients.institution(
            gateway_pb2_grpc.InstitutionServiceStub,
            site,
            request.bill.reference.institution,
            door,
        )
        while True:
            try:
                await stub.Quote(asked, timeout=_CALL_S)
                break
            except Refusal as refusal:
                if not refusal.spec.retryable or monotonic_us() > until:
                    raise LocalNetworkError(
                        f"the network runs but does not quote {name}: {refusal}"
                    ) from refusal
            await asyncio.sleep(0.05)


def _check(failed: bool, status: status_pb2.Status) -> None:
    if failed:
        raise LocalNetworkError(f"a sample person was refused: {Refusal.from_status(status)}")
