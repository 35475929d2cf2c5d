"""Filing from the care place over all sites: seen at once, never twice, in no settlement's way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from real_network import until
from world import (
    BEIJING,
    GUANGDONG,
    GUANGZHOU,
    ZHANJIANG,
    Patient,
    World,
    make_pki,
    outcomes,
    world,
)

from infra.cli.roles.nation import nation_relay
from infra.cli.roles.province import Province
from infra.runtime.call import Call
from infra.runtime.clock import SystemClock
from infra.runtime.config import NATION, Settings
from infra.runtime.errors import Reason, Refusal
from infra.runtime.server import Builder, Runtime, Service
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import participant_pb2, participant_pb2_grpc
from yidi.filing.v1 import desk_pb2, desk_pb2_grpc, filing_pb2
from yidi.gateway.v1 import filing_desk_pb2, filing_desk_pb2_grpc

COMPLETED = types_pb2.SETTLEMENT_STATE_COMPLETED
FILED = types_pb2.FILING_BASIS_FILED
LOST = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="test")


class Losing:
    """A servicer whose method `name` does its work; then its answer is lost as told."""

    def __init__(self, servicer: Any, name: str) -> None:
        self._servicer = servicer
        self._name = name
        self.lose: Callable[[Any], Any] | None = None
        self.down = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._servicer, name)

        async def call(request: Any, call: Call) -> Any:
            if self.down:
                raise LOST
            answer = await method(request, call)
            return answer if self.lose is None else self.lose(answer)

        return call if name == self._name else method


@dataclass(slots=True)
class Place:
    """What the tests break: the desk of 广东, and the nation's relay."""

    sites: World
    desk: Losing
    nation: Losing

    def door(self, area: str) -> filing_desk_pb2_grpc.FilingDeskServiceStub:
        return self.sites.door(filing_desk_pb2_grpc.FilingDeskServiceStub, area)

    async def apply(
        self, patient: Patient, area: str = BEIJING, **facts: Any
    ) -> desk_pb2.FilingAnswer:
        """File for a patient from five days ago, at the hospital of `area` and to that place."""
        fields: dict[str, Any] = {
            "request_id": f"file-{uuid4()}",
            "applicant": applicant(patient),
            "kind": types_pb2.FILING_KIND_OTHER_TEMPORARY,
            "channel": types_pb2.FILING_CHANNEL_NATIONAL_APP,
            "care_place": area,
            "start_date": (self.sites.today - timedelta(days=5)).isoformat(),
            "operator": "收费员示例",
        }
        application = desk_pb2.Application(**(fields | facts))
        request = filing_desk_pb2.ApplyFilingRequest(application=application)
        return (await self.door(area).ApplyFiling(request, timeout=10)).answer

    async def check(self, patient: Patient, area: str = BEIJING) -> desk_pb2.VisitCheckAnswer:
        visit = self.sites.request(patient, care_area=area).bill.visit
        check = desk_pb2.VisitCheck(applicant=applicant(patient), visit=visit)
        request = filing_desk_pb2.CheckFilingRequest(check=check)
        return (await self.door(area).CheckFiling(request, timeout=10)).answer

    async def filings(self, patient: Patient, area: str = BEIJING) -> Sequence[Any]:
        listing = desk_pb2.Listing(applicant=applicant(patient))
        request = filing_desk_pb2.ListFilingsRequest(listing=listing)
        return (await self.door(area).ListFilings(request, timeout=10)).answer.filings


def applicant(patient: Patient) -> desk_pb2.Applicant:
    return desk_pb2.Applicant(
        credential=patient.credential,
        insured_area=patient.area,
        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
    )


def _losing(
    build: Callable[[Runtime], Builder], name: str, made: list[Losing]
) -> Callable[[Runtime], Any]:
    """Builds a service whose method `name` can lose its answers."""

    async def losing(runtime: Runtime) -> Service:
        service = await build(runtime)(runtime)
        made.append(Losing(service.servicer, name))
        return replace(service, servicer=made[-1])

    return losing


@pytest.fixture(scope="module")
async def place(
    database_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    made: list[Losing] = []
    provinces: list[Province] = []

    def filing(runtime: Runtime) -> Builder:
        provinces.append(Province(runtime.settings))
        return provinces[0].roles()["filing"][0]

    replaced = {
        NATION: {"relay": [_losing(lambda _: nation_relay, "BatchExchange", made)]},
        GUANGDONG: {
            "filing": [
                lambda runtime: filing(runtime)(runtime),
                _losing(lambda _: provinces[0].roles()["filing"][1], "BatchHandle", made),
            ]
        },
    }
    async with world(
        database_settings=database_settings,
        pki=make_pki(tmp_path_factory.mktemp("pki")),
        clock=SystemClock(),
        limits={"recover": False},
        replaced=replaced,
    ) as sites:
        nation, desk = made
        yield Place(sites, desk, nation)


@pytest.fixture
async def patient(place: Place) -> Patient:
    """Insured in 湛江, with nothing filed."""
    [made] = await place.sites.patients(1, places=())
    return made


async def _counts(place: Place, site: str) -> dict[str, int]:
    """Rows of every table of a site."""
    admin = await place.sites.admin(site)
    tables = await admin.fetch(
        """SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
           WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"""
    )
    return {
        row["name"]: await admin.fetchval(f"SELECT count(*) FROM {row['name']}") for row in tables
    }


@pytest.mark.parametrize("area", [BEIJING, GUANGZHOU])
async def test_filed_at_the_hospital_it_settles_at_once(
    place: Place, patient: Patient, area: str
) -> None:
    """S0-19, S3-28: an unfiled patient is guided, filed and settled before leaving; what is filed
    counts at every hospital with the very next call."""
    with pytest.raises(Refusal, match="FILING_REQUIRED"):
        await place.sites.settle(place.sites.request(patient, care_area=area))
    checked = await place.check(patient, area)
    assert Refusal.from_status(checked.refusal).name == "FILING_REQUIRED"
    kinds = {kind.kind: kind for kind in checked.guidance.kinds}
    assert (
        types_pb2.FILING_CHANNEL_NATIONAL_APP
        in kinds[types_pb2.FILING_KIND_OTHER_TEMPORARY].channels
    )
    made = (await place.apply(patient, area)).filing
    settled = await place.sites.settle(place.sites.request(patient, care_area=area))
    entitled = settled.result.entitlement
    assert settled.state == COMPLETED
    assert (entitled.basis, entitled.filing_id) == (FILED, made.filing_id)
    assert entitled.late_filing
    for seen in (BEIJING, GUANGZHOU, ZHANJIANG):
        [found] = await place.filings(patient, seen)
        assert found.filing.filing_id == made.filing_id
        assert [event.actor for event in found.history] != []
    assert (await place.check(patient, area)).entitlement.filing_id == made.filing_id


async def test_at_home_nothing_needs_to_be_filed(place: Place, patient: Patient) -> None:
    checked = await place.check(patient, ZHANJIANG)
    assert checked.entitlement.basis == types_pb2.FILING_BASIS_LOCAL
    assert not checked.HasField("guidance")


LOSSES: dict[str, Callable[[Any], Any]] = {
    "answer": lambda answer: type(answer)(),
    "outcome": lambda answer: type(answer)(
        results=[type(result)(id=result.id) for result in answer.results]
    ),
}


@pytest.mark.parametrize("what", LOSSES)
@pytest.mark.parametrize("where", ["desk", "nation"])
async def test_a_lost_answer_is_unknown_and_the_same_request_gives_the_one_answer(
    place: Place, patient: Patient, where: str, what: str
) -> None:
    """Whatever hop loses it: filed once, and nobody is told that nothing was filed."""
    request_id = f"file-{uuid4()}"
    broken = getattr(place, where)
    broken.lose = LOSSES[what]
    try:
        with pytest.raises(Refusal, match="FILING_OUTCOME_UNKNOWN"):
            await place.apply(patient, request_id=request_id)
    finally:
        broken.lose = None
    answer = await place.apply(patient, request_id=request_id)
    assert answer == await place.apply(patient, request_id=request_id)
    [found] = await place.filings(patient)
    assert found.filing == answer.filing
    with pytest.raises(Refusal, match="REQUEST_ID_REUSED"):
        await place.apply(patient, request_id=request_id, start_date=place.sites.today.isoformat())


async def test_the_same_request_many_times_at_once_is_filed_once(
    place: Place, patient: Patient
) -> None:
    request_id = f"file-{uuid4()}"
    answers = await outcomes(place.apply(patient, request_id=request_id) for _ in range(8))
    ids = {answer.filing.filing_id for answer in answers if not isinstance(answer, Refusal)}
    refused = {answer.name for answer in answers if isinstance(answer, Refusal)}
    assert len(ids) == 1
    assert refused <= {"PERSON_BUSY"}
    assert len(await place.filings(patient)) == 1


async def test_what_an_institution_may_not_file(place: Place, patient: Patient) -> None:
    """Each refused with its reason, and nothing is filed."""
    unknown = applicant(patient)
    unknown.insured_area = "999900"
    upload: dict[str, Any] = {
        "kind": types_pb2.FILING_KIND_REFERRAL,
        "channel": types_pb2.FILING_CHANNEL_HOSPITAL_UPLOAD,
    }
    cases: list[tuple[str, dict[str, Any]]] = [
        ("AREA_UNKNOWN", {"applicant": unknown}),
        ("FILING_PLACE_UNKNOWN", {"care_place": "999900"}),
        ("FOREIGN_CODE", upload | {"referral_institution": "H44080300001"}),
        ("FILING_CHANNEL_NOT_ALLOWED", {"channel": types_pb2.FILING_CHANNEL_WINDOW}),
    ]
    for reason, facts in cases:
        with pytest.raises(Refusal) as refused:
            await place.apply(patient, **facts)
        assert refused.value.name == reason
    foreign = place.sites.request(patient, care_area=GUANGZHOU).bill.visit
    check = desk_pb2.VisitCheck(applicant=applicant(patient), visit=foreign)
    with pytest.raises(Refusal, match="FOREIGN_CODE"):
        await place.door(BEIJING).CheckFiling(
            filing_desk_pb2.CheckFilingRequest(check=check), timeout=5
        )
    assert not await place.filings(patient)


async def test_nothing_of_filing_is_kept_on_the_way(place: Place, patient: Patient) -> None:
    """The nation journals nothing of it, and the care place has no row of it."""
    before = {site: await _counts(place, site) for site in (NATION, BEIJING)}
    await place.apply(patient)
    await place.check(patient)
    assert len(await place.filings(patient)) == 1
    assert {site: await _counts(place, site) for site in (NATION, BEIJING)} == before


async def test_without_the_nation_the_province_files_for_its_own(
    place: Place, patient: Patient
) -> None:
    place.nation.down = True
    try:
        with pytest.raises(Refusal, match="FILING_OUTCOME_UNKNOWN"):
            await place.apply(patient)
        made = (await place.apply(patient, GUANGZHOU)).filing
        answer = await place.sites.settle(place.sites.request(patient, care_area=GUANGZHOU))
        assert answer.result.entitlement.filing_id == made.filing_id
        home = await place.filings(patient, ZHANJIANG)
        assert [found.filing.filing_id for found in home] == [made.filing_id]
    finally:
        place.nation.down = False
    assert len(await place.filings(patient)) == 1


async def test_a_desk_that_is_down_closes_no_settlement(place: Place, patient: Patient) -> None:
    """Filing has lanes and breakers of its own at every hop."""
    await place.apply(patient)
    place.desk.down = True

    async def refused() -> str:
        try:
            await place.filings(patient)
        except Refusal as refusal:
            return refusal.name
        return ""

    try:
        # More failures than any breaker on the way lets pass.
        names = {await refused() for _ in range(8)}
        assert names <= {"SERVICE_UNAVAILABLE", "SITE_UNREACHABLE"}
        answer = await place.sites.settle(place.sites.request(patient))
        assert answer.state == COMPLETED
    finally:
        place.desk.down = False

    async def answers() -> bool:
        return not await refused()

    await until(answers, within_s=20)


async def test_a_transfer_ends_what_was_filed_and_the_new_area_decides(
    place: Place, patient: Patient
) -> None:
    """S4-8, S3-24: the old filing is told as such; filed anew and reviewed, the stay settles."""
    sites, start = place.sites, place.sites.today - timedelta(days=5)
    await place.sites.file([patient], BEIJING)
    participants = sites.operator(participant_pb2_grpc.ParticipantServiceStub, GUANGDONG)
    known = await participants.GetParticipant(
        participant_pb2.GetParticipantRequest(insured_area=ZHANJIANG, person_id=patient.person_id),
        timeout=10,
    )
    await participants.ChangeParticipant(
        participant_pb2.ChangeParticipantRequest(
            request_id=f"move-{uuid4()}",
            person_id=patient.person_id,
            version=known.record.version,
            insured_area=ZHANJIANG,
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            day=(start - timedelta(days=5)).isoformat(),
            transfer=participant_pb2.Transfer(
                to_area=GUANGZHOU, person_class=types_pb2.PERSON_CLASS_RETIRED
            ),
        ),
        timeout=10,
    )
    moved = replace(patient, area=GUANGZHOU)

    async def refused(one: Patient) -> str:
        with pytest.raises(Refusal) as told:
            await sites.settle(sites.request(one))
        return told.value.name

    assert await refused(patient) == "INSURANCE_TRANSFERRED"
    assert await refused(moved) == "FILING_FORMER_AREA"
    waiting = (await place.apply(moved)).filing
    assert waiting.state == filing_pb2.FILING_STATE_PENDING
    assert await refused(moved) == "FILING_PENDING"
    desk = sites.operator(desk_pb2_grpc.DeskServiceStub, GUANGDONG)
    await desk.ReviewFiling(
        desk_pb2.ReviewFilingRequest(
            request_id=f"review-{uuid4()}",
            filing_id=waiting.filing_id,
            version=waiting.version,
            accepted=True,
        ),
        timeout=10,
    )
    settled = await sites.settle(sites.request(moved))
    assert settled.state == COMPLETED
    assert settled.result.entitlement.filing_id == waiting.filing_id
