"""What the desk is tested with: a directory, neighbours that answer what a test says, and asks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.clock import ManualClock, new_id
from infra.runtime.config import Area, Settings
from infra.runtime.directory import Directory, site_message
from infra.runtime.errors import Reason, Refusal
from services.filing.desk_service import DeskServicer
from services.filing.places import Places
from services.filing.written_rules import load_area_rules
from yidi.common.v1 import envelope_pb2, types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2
from yidi.relay.v1 import relay_pb2
from yidi.settlement.v1 import insured_pb2

SITE = "440000"
AREA = "440800"
EMPLOYEE = types_pb2.INSURANCE_TYPE_EMPLOYEE
NAMES = {"110000": "北京市", "310000": "上海市", "440100": "广州市"}
HOSPITAL = "H11010100001"
OWN_HOSPITAL = "H44080300001"
IDS = ManualClock(1)
RULES = load_area_rules()
OWN = (
    Area(code="440800", name="湛江市", aliases=("440802",)),
    Area(code="440100", name="广州市"),
    Area(code="370800", name="济宁市"),
    Area(code="140200", name="大同市"),
)
"""One site stands for the areas of several provinces: each has rules of its own."""
FOREIGN = {
    "110000": (Area(code="110000", name="北京市", aliases=("110105",)),),
    "310000": (Area(code="310000", name="上海市"),),
    "320000": (Area(code="320100", name="南京市"),),
}


def make_directory(settings: Settings, clock: ManualClock) -> Directory:
    """The own areas and three foreign sites, as fresh as the clock."""
    site = settings.site.model_copy(update={"areas": OWN})
    directory = Directory(settings.model_copy(update={"site": site}), clock)
    snapshot = relay_pb2.GetDirectoryResponse(
        revision=1, sites=[site_message(code, code, areas) for code, areas in FOREIGN.items()]
    )
    snapshot.as_of_time.FromMilliseconds(clock.ms)
    directory.update(snapshot)
    return directory


def person(token: str) -> str:
    """The person of a token."""
    return str(uuid5(UUID(int=0), token))


class Enrollment:
    """Makes a retired employee of every token; `nobody` and `lost` are the exceptions."""

    def __init__(self) -> None:
        self.calls: list[enrollment_pb2.BatchIdentifyRequest] = []
        self.insured_since = ""
        self.person_class = types_pb2.PERSON_CLASS_RETIRED

    async def BatchIdentify(
        self, request: enrollment_pb2.BatchIdentifyRequest, *, timeout: float, traceparent: str
    ) -> enrollment_pb2.BatchIdentifyResponse:
        self.calls.append(request)
        results = []
        for item in reversed(request.items):
            token = item.credential.number
            if token == "lost":
                continue
            result = enrollment_pb2.IdentifyResult(id=item.id)
            if token == "nobody":
                refusal = Refusal(Reason.ERROR_REASON_PERSON_NOT_IDENTIFIED)
                result.error.CopyFrom(refusal.status())
            else:
                result.participant.person_id = person(token)
                result.participant.insured_area = item.insured_area
                result.participant.insurance = item.insurance
                result.participant.person_class = self.person_class
                result.participant.insured_since = self.insured_since
            results.append(result)
        return enrollment_pb2.BatchIdentifyResponse(results=results)


class Settlement:
    """Says that something was paid under the filings in `paid`."""

    def __init__(self) -> None:
        self.paid: set[str] = set()
        self.calls: list[list[str]] = []
        self.away = False

    async def BatchHasCosts(
        self, request: insured_pb2.BatchHasCostsRequest, *, timeout: float, traceparent: str
    ) -> insured_pb2.BatchHasCostsResponse:
        self.calls.append([item.filing_id for item in request.items])
        if self.away:
            raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="settlement")
        return insured_pb2.BatchHasCostsResponse(
            results=[
                insured_pb2.HasCostsResult(id=item.id, has_costs=item.filing_id in self.paid)
                for item in request.items
            ]
        )


class DeskWorld:
    """A desk with its neighbours; every ask has a request id of its own unless it is given."""

    def __init__(self, database: Any, clock: ManualClock, directory: Directory) -> None:
        self.database = database
        self.clock = clock
        self.directory = directory
        self.enrollment = Enrollment()
        self.settlement = Settlement()
        self.servicer = self.another_desk(database)
        self.clerk = Call(Identity(SITE, CallerType.OPERATOR, "经办示例"), 1 << 62, "00-trace")

    def another_desk(self, database: Any) -> DeskServicer:
        """A second replica on `database`."""
        return DeskServicer(
            database=database,
            clock=self.clock,
            enrollment=self.enrollment,
            settlement=self.settlement,
            directory=self.directory,
            places=Places(self.directory, SITE),
            rules=RULES,
            area_names=NAMES,
            call_seconds=2,
            allow_illustrative=True,
        )

    def at(self, day: str) -> None:
        """Ten in the morning of `day` in Shanghai, with a fresh directory."""
        morning = datetime.fromisoformat(f"{day}T02:00").replace(tzinfo=UTC)
        self.clock.ms = int(morning.timestamp() * 1000)
        self.directory.snapshot.as_of_time.FromMilliseconds(self.clock.ms)

    async def apply(self, token: str, **fields: Any) -> desk_pb2.FilingAnswer:
        """Apply as the clerk."""
        request = desk_pb2.ApplyFilingRequest(application=application(token, **fields))
        return (await self.servicer.ApplyFiling(request, self.clerk)).answer

    async def change(
        self, token: str, filing: filing_pb2.Filing, **fields: Any
    ) -> desk_pb2.FilingAnswer:
        """Change as the clerk, through the channel of the filing."""
        asked = desk_pb2.Change(**(about(token, filing) | fields))
        request = desk_pb2.ChangeFilingRequest(change=asked)
        return (await self.servicer.ChangeFiling(request, self.clerk)).answer

    async def cancel(
        self, token: str, filing: filing_pb2.Filing, **fields: Any
    ) -> desk_pb2.FilingAnswer:
        """Cancel, or end with a last day, as the clerk."""
        asked = desk_pb2.Cancellation(**(about(token, filing) | fields))
        request = desk_pb2.CancelFilingRequest(cancellation=asked)
        return (await self.servicer.CancelFiling(request, self.clerk)).answer

    async def supplement(
        self, token: str, filing: filing_pb2.Filing, **fields: Any
    ) -> desk_pb2.FilingAnswer:
        """Add material as the clerk."""
        asked = desk_pb2.Supplement(**(about(token, filing) | fields))
        request = desk_pb2.SupplementFilingRequest(supplement=asked)
        return (await self.servicer.SupplementFiling(request, self.clerk)).answer

    async def review(self, filing: filing_pb2.Filing, **fields: Any) -> filing_pb2.Filing:
        """Accept or refuse as the clerk."""
        named = {
            "request_id": request_id(),
            "filing_id": filing.filing_id,
            "version": filing.version,
        }
        request = desk_pb2.ReviewFilingRequest(**(named | fields))
        return (await self.servicer.ReviewFiling(request, self.clerk)).filing

    async def list(self, token: str, area: str = AREA) -> list[desk_pb2.FilingRecord]:
        """A person's filings."""
        request = desk_pb2.ListFilingsRequest(
            listing=desk_pb2.Listing(applicant=applicant(token, area))
        )
        return list((await self.servicer.ListFilings(request, self.clerk)).answer.filings)

    async def check(self, token: str, **changes: Any) -> desk_pb2.VisitCheckAnswer:
        """Whether a stay in Beijing would be entitled."""
        request = desk_pb2.CheckFilingRequest(check=visit_check(token, **changes))
        return (await self.servicer.CheckFiling(request, self.clerk)).answer

    async def handle(
        self, *envelopes: envelope_pb2.Envelope
    ) -> list[desk_pb2.DeskAnswer | Refusal]:
        """What institutions are answered; a `Refusal` where nothing was decided."""
        response = await self.servicer.BatchHandle(
            desk_pb2.BatchHandleRequest(items=envelopes), self.clerk
        )
        answers = {
            one.id: Refusal.from_status(one.error)
            if one.HasField("error")
            else desk_pb2.DeskAnswer.FromString(one.filed)
            for one in response.results
        }
        assert len(answers) == len(response.results) == len(envelopes)
        return [answers[envelope.id] for envelope in envelopes]


def request_id() -> str:
    """A new request id."""
    return new_id(IDS)


def applicant(token: str, area: str = AREA) -> desk_pb2.Applicant:
    """Somebody with a token."""
    return desk_pb2.Applicant(
        credential=visit_pb2.Credential(type=types_pb2.CREDENTIAL_TYPE_ELECTRONIC, number=token),
        insured_area=area,
        insurance=EMPLOYEE,
    )


def application(token: str, area: str = AREA, **fields: Any) -> desk_pb2.Application:
    """Other temporary care in Beijing from today, at the window with form 1."""
    return desk_pb2.Application(
        **(
            {
                "request_id": request_id(),
                "applicant": applicant(token, area),
                "kind": types_pb2.FILING_KIND_OTHER_TEMPORARY,
                "channel": types_pb2.FILING_CHANNEL_WINDOW,
                "care_place": "110000",
                "materials": [filing_pb2.MATERIAL_FILING_FORM],
            }
            | fields
        )
    )


def resident(**fields: Any) -> dict[str, Any]:
    """Fields of a long-term residence proved by a permit."""
    return {
        "kind": types_pb2.FILING_KIND_LONG_TERM_RESIDENT,
        "materials": [
            filing_pb2.MATERIAL_FILING_FORM,
            filing_pb2.MATERIAL_RESIDENCE_PERMIT,
            filing_pb2.MATERIAL_COMMITMENT,
        ],
    } | fields


def about(token: str, filing: filing_pb2.Filing) -> dict[str, Any]:
    """What every change of a filing names."""
    return {
        "request_id": request_id(),
        "applicant": applicant(token, filing.insured_area),
        "filing_id": filing.filing_id,
        "version": filing.version,
        "channel": filing.channel,
    }


def visit_check(token: str, area: str = AREA, **changes: Any) -> desk_pb2.VisitCheck:
    """An ordinary stay in Beijing."""
    visit = {
        "care_area": "110000",
        "insured_area": area,
        "insurance": EMPLOYEE,
        "care_type": types_pb2.CARE_TYPE_INPATIENT,
        "start_date": "2026-11-10",
        "end_date": "2026-11-21",
        "inpatient_type": types_pb2.INPATIENT_TYPE_ORDINARY,
    }
    return desk_pb2.VisitCheck(
        applicant=applicant(token, area), visit=visit_pb2.Visit(**(visit | changes))
    )


def envelope(institution: str = HOSPITAL, **ask: Any) -> envelope_pb2.Envelope:
    """What an institution in Beijing asks, e.g. `envelope(application=application("t"))`."""
    payload = desk_pb2.DeskPayload(**ask).SerializeToString()
    return envelope_pb2.Envelope(
        id=new_id(IDS),
        kind=types_pb2.EXCHANGE_KIND_FILING,
        origin=envelope_pb2.Origin(
            care_area=AREA if institution == OWN_HOSPITAL else "110000", institution=institution
        ),
        insured_area=AREA,
        contract_revision=1,
        remaining_ms=2000,
        payload_digest=hashlib.sha256(payload).digest(),
        payload=payload,
    )


class Between:
    """A database that lets a test act between two statements of its user."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.engine = inner.engine
        self.before: dict[str, Callable[[], Any]] = {}
        """Beginning of a statement's interesting part → what happens once before it."""

    async def run(self, statement: str, *arguments: Any) -> Any:
        for part in [part for part in self.before if part in statement]:
            await self.before.pop(part)()
        return await self._inner.run(statement, *arguments)
