"""What an institution is told when it files: the desk's answer, or that it is not known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from relay_peers import CLOCK, SITES, call_of

from gateway.frontdoor.filing import FilingDesks
from gateway.frontdoor.filing_desk import FilingDeskServicer
from gateway.frontdoor.queues import ExchangeQueues
from infra.runtime.breaker import BreakerLimits
from infra.runtime.call import Call, CallerType, Identity
from infra.runtime.coalesce import Bounds
from infra.runtime.config import Area, Settings
from infra.runtime.directory import Directory
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import envelope_pb2, types_pb2, visit_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2
from yidi.gateway.v1 import filing_desk_pb2
from yidi.relay.v1 import relay_pb2

HOSPITAL = "H44010000001"
ACROSS = types_pb2.ROUTE_CROSS_PROVINCE
Result = envelope_pb2.ExchangeResult
Answer = Callable[[envelope_pb2.Envelope], Result | None]
AREAS = (
    Area(code="440100", name="广州市", aliases=("440103",)),
    Area(code="440800", name="湛江市", aliases=("440802",)),
)


class Desk:
    """A front door of 广东 towards desks that answer as they are told."""

    def __init__(self, tmp_path: Path) -> None:
        settings = Settings.model_validate(
            {
                "site": {"code": "440000", "name": "广东省"},
                "nation": {"edge": "127.0.0.1:1"},
                "database": {"host": "127.0.0.1", "name": "none", "password": "none"},
                "tls": {"directory": str(tmp_path)},
            }
        )
        self.answer: Answer = _filed
        self.broken: Refusal | None = None
        self.sent: list[tuple[int, envelope_pb2.Envelope]] = []
        own = settings.site.model_copy(update={"areas": AREAS})
        self.directory = Directory(settings.model_copy(update={"site": own}), CLOCK)
        snapshot = relay_pb2.GetDirectoryResponse(revision=1, sites=SITES[:2])
        snapshot.as_of_time.FromMilliseconds(CLOCK.now_ms())
        self.directory.update(snapshot)
        self.servicer = FilingDeskServicer(
            FilingDesks(
                clock=CLOCK,
                directory=self.directory,
                area=AREAS[0].code,
                limits=settings.limits,
                exchanges=ExchangeQueues(
                    exchange=self._exchange,
                    bounds=Bounds(),
                    margin_ms=50,
                    breaker=BreakerLimits(failures=2, open_ms=600_000),
                ),
            )
        )

    async def _exchange(
        self,
        route: types_pb2.Route.ValueType,
        envelopes: Sequence[envelope_pb2.Envelope],
        seconds: float,
    ) -> Sequence[Result]:
        assert 0 < seconds <= 6
        self.sent += [(route, envelope) for envelope in envelopes]
        if self.broken is not None:
            raise self.broken
        answers = [self.answer(envelope) for envelope in envelopes]
        return [answer for answer in answers if answer is not None]

    async def apply(self, area: str = "110000", **fields: Any) -> desk_pb2.FilingAnswer:
        request = filing_desk_pb2.ApplyFilingRequest(application=_application(area, **fields))
        return (await self.servicer.ApplyFiling(request, hospital())).answer

    async def list(self) -> desk_pb2.ListingAnswer:
        listing = desk_pb2.Listing(applicant=_applicant("110000"))
        request = filing_desk_pb2.ListFilingsRequest(listing=listing)
        return (await self.servicer.ListFilings(request, hospital())).answer


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def hospital(code: str = HOSPITAL) -> Call:
    return call_of(Identity("440000", CallerType.INSTITUTION, code))


def _applicant(area: str) -> desk_pb2.Applicant:
    return desk_pb2.Applicant(
        credential=visit_pb2.Credential(
            type=types_pb2.CREDENTIAL_TYPE_ELECTRONIC, number="token-of-somebody"
        ),
        insured_area=area,
        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
    )


def _application(area: str, **fields: Any) -> desk_pb2.Application:
    facts: dict[str, Any] = {
        "request_id": "request-01",
        "kind": types_pb2.FILING_KIND_OTHER_TEMPORARY,
        "channel": types_pb2.FILING_CHANNEL_NATIONAL_APP,
        "care_place": "440100",
        "operator": "收费员示例",
    }
    return desk_pb2.Application(applicant=_applicant(area), **(facts | fields))


def _answered(answer: desk_pb2.DeskAnswer) -> Answer:
    return lambda envelope: Result(id=envelope.id, filed=answer.SerializeToString())


def _filed(envelope: envelope_pb2.Envelope) -> Result:
    """As a desk: what is asked decides what is answered."""
    ask = desk_pb2.DeskPayload.FromString(envelope.payload).WhichOneof("ask")
    answer = desk_pb2.DeskAnswer()
    if ask == "check":
        answer.check.entitlement.reason = "entitled"
    elif ask == "listing":
        answer.listing.filings.add(filing=filing_pb2.Filing(filing_id="f-1"))
    elif ask == "question":
        answer.guidance.area_name = "北京市"
    else:
        answer.filing.filing.filing_id = f"f-{ask}"
    return Result(id=envelope.id, filed=answer.SerializeToString())


def _error(reason: Reason.ValueType, *, not_forwarded: bool = False) -> Answer:
    status = Refusal(reason).status()
    return lambda envelope: Result(id=envelope.id, error=status, not_forwarded=not_forwarded)


async def test_every_ask_travels_as_one_envelope_of_its_caller(desk: Desk) -> None:
    """S0-19: seven calls, each answered by the desk of the insured place."""
    call, applicant = hospital(), _applicant("110105")  # a county code of 北京
    visit = visit_pb2.Visit(care_area="440103", insured_area="110105")
    check = desk_pb2.VisitCheck(applicant=applicant, visit=visit)
    checked = await desk.servicer.CheckFiling(filing_desk_pb2.CheckFilingRequest(check=check), call)
    assert checked.answer.entitlement.reason == "entitled"
    asked = {
        "application": await desk.apply("110105"),
        "supplement": (
            await desk.servicer.SupplementFiling(
                filing_desk_pb2.SupplementFilingRequest(
                    supplement=desk_pb2.Supplement(applicant=applicant)
                ),
                call,
            )
        ).answer,
        "change": (
            await desk.servicer.ChangeFiling(
                filing_desk_pb2.ChangeFilingRequest(change=desk_pb2.Change(applicant=applicant)),
                call,
            )
        ).answer,
        "cancellation": (
            await desk.servicer.CancelFiling(
                filing_desk_pb2.CancelFilingRequest(
                    cancellation=desk_pb2.Cancellation(applicant=applicant)
                ),
                call,
            )
        ).answer,
    }
    assert {answer.filing.filing_id for answer in asked.values()} == {f"f-{ask}" for ask in asked}
    assert [found.filing.filing_id for found in (await desk.list()).filings] == ["f-1"]
    question = desk_pb2.GuidanceQuestion(insured_area="110105")
    guided = await desk.servicer.GetGuidance(
        filing_desk_pb2.GetGuidanceRequest(question=question), call
    )
    assert guided.guidance.area_name == "北京市"
    assert len(desk.sent) == 7
    for route, envelope in desk.sent:
        assert (route, envelope.kind) == (ACROSS, types_pb2.EXCHANGE_KIND_FILING)
        assert (envelope.origin.institution, envelope.origin.care_area) == (HOSPITAL, "440100")
        assert envelope.insured_area == "110000"
        assert 0 < envelope.remaining_ms <= 5_950
        assert "110105" not in str(desk_pb2.DeskPayload.FromString(envelope.payload))
    sent = desk_pb2.DeskPayload.FromString(desk.sent[0][1].payload).check
    assert (sent.institution, sent.visit.care_area) == (HOSPITAL, "440100")
    assert desk.sent[1][1].origin.operator == "收费员示例"


async def test_inside_the_site_the_own_desk_is_asked(desk: Desk) -> None:
    await desk.apply("440802")
    await desk.apply("440100", request_id="request-02")
    assert ACROSS not in [route for route, _ in desk.sent]
    assert [envelope.insured_area for _, envelope in desk.sent] == ["440800", "440100"]


UNKNOWN: list[tuple[str, Answer, Refusal | None]] = [
    ("call lost", _filed, Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="relay")),
    ("missing", lambda _: None, None),
    ("nothing set", lambda envelope: Result(id=envelope.id), None),
    ("a hop beyond lost it", _error(Reason.ERROR_REASON_SERVICE_UNAVAILABLE), None),
    ("the desk's connection broke", _error(Reason.ERROR_REASON_DATABASE_UNAVAILABLE), None),
    ("a fault", _error(Reason.ERROR_REASON_INTERNAL), None),
    ("no message", lambda envelope: Result(id=envelope.id, filed=b"\xff\xff"), None),
    ("no answer in it", _answered(desk_pb2.DeskAnswer()), None),
    ("another's answer", _answered(desk_pb2.DeskAnswer(guidance=desk_pb2.Guidance())), None),
    ("like a settlement", lambda envelope: Result(id=envelope.id, rejected=b"r"), None),
]


@pytest.mark.parametrize(
    ("answer", "broken"), [case[1:] for case in UNKNOWN], ids=[case[0] for case in UNKNOWN]
)
async def test_no_answer_once_it_has_left_is_unknown_and_may_be_asked_again(
    desk: Desk, answer: Answer, broken: Refusal | None
) -> None:
    desk.answer, desk.broken = answer, broken
    with pytest.raises(Refusal, match="FILING_OUTCOME_UNKNOWN") as refused:
        await desk.apply()
    assert refused.value.retry_ms
    assert "同一请求号" in refused.value.next_step
    # What changes nothing is only not there.
    with pytest.raises(Refusal) as unread:
        await desk.list()
    assert unread.value.name in (
        "SITE_UNREACHABLE",
        "SERVICE_UNAVAILABLE",
        "DATABASE_UNAVAILABLE",
        "INTERNAL",
    )


@pytest.mark.parametrize(
    "reason",
    [
        Reason.ERROR_REASON_SITE_DOWNTIME,
        Reason.ERROR_REASON_SITE_UNREACHABLE,
        Reason.ERROR_REASON_OVERLOADED,
    ],
)
async def test_what_was_not_forwarded_is_refused_as_it_is(
    desk: Desk, reason: Reason.ValueType
) -> None:
    desk.answer = _error(reason, not_forwarded=True)
    with pytest.raises(Refusal) as refused:
        await desk.apply()
    assert refused.value.reason == reason


async def test_what_the_desk_decides_is_passed_on_with_its_values(desk: Desk) -> None:
    locked = Refusal(
        Reason.ERROR_REASON_FILING_LOCKED, filing="f-1", until="2027-01-01", cause="已发生费用"
    )
    desk.answer = _answered(desk_pb2.DeskAnswer(error=locked.status()))
    with pytest.raises(Refusal) as refused:
        await desk.apply()
    assert refused.value.name == "FILING_LOCKED"
    assert refused.value.message == locked.message
    for reason in (Reason.ERROR_REASON_PERSON_BUSY, Reason.ERROR_REASON_FOREIGN_CODE):
        desk.answer = _error(reason)
        with pytest.raises(Refusal) as refused:
            await desk.apply()
        assert refused.value.reason == reason


async def test_an_institution_uploads_its_own_referrals_only(desk: Desk) -> None:
    """S1-13: a referral is uploaded by the institution that refers."""
    upload: dict[str, Any] = {
        "kind": types_pb2.FILING_KIND_REFERRAL,
        "channel": types_pb2.FILING_CHANNEL_HOSPITAL_UPLOAD,
    }
    for referring in ("H44080000001", ""):
        with pytest.raises(Refusal, match="FOREIGN_CODE") as refused:
            await desk.apply(referral_institution=referring, **upload)
        assert refused.value.details["field"] == "application.referral_institution"
    assert desk.sent == []
    await desk.apply(referral_institution=HOSPITAL, **upload)
    check = desk_pb2.VisitCheck(applicant=_applicant("110000"), institution="H44080000001")
    with pytest.raises(Refusal, match="FOREIGN_CODE"):
        await desk.servicer.CheckFiling(filing_desk_pb2.CheckFilingRequest(check=check), hospital())
    assert len(desk.sent) == 1


async def test_nothing_leaves_for_an_area_that_does_not_exist_or_is_down(desk: Desk) -> None:
    with pytest.raises(Refusal, match="AREA_UNKNOWN"):
        await desk.apply("999900")
    snapshot = relay_pb2.GetDirectoryResponse()
    snapshot.CopyFrom(desk.directory.snapshot)
    downtime = snapshot.downtimes.add(site="110000", notice="系统升级")
    downtime.start_time.FromMilliseconds(CLOCK.now_ms() - 1_000)
    downtime.end_time.FromMilliseconds(CLOCK.now_ms() + 3_600_000)
    desk.directory.update(snapshot)
    with pytest.raises(Refusal, match="SITE_DOWNTIME"):
        await desk.apply()
    assert desk.sent == []


async def test_a_site_that_does_not_answer_is_left_alone_for_a_while(desk: Desk) -> None:
    desk.broken = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="relay")
    for _ in range(2):
        with pytest.raises(Refusal, match="FILING_OUTCOME_UNKNOWN"):
            await desk.apply()
    desk.broken = None
    with pytest.raises(Refusal, match="SITE_UNREACHABLE"):
        await desk.apply()
    assert len(desk.sent) == 2
    assert (await desk.apply("440800")).filing.filing_id  # the own desk has a breaker of its own
