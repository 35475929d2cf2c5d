"""Drafts, reviews by another person, publications, retirements: on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from policy_samples import deductible, fund, row
from publishing_desk import (
    AREA,
    LI,
    PUBLISHED,
    WANG,
    ZHAO,
    a_unit,
    compute,
    draft,
    funds_pay,
    in_folder,
    publish,
    review,
    written,
)

from infra.runtime.clock import ManualClock, new_id
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from services.policy import reading
from services.policy.domain.canonical import content_hash
from services.policy.loader import load_documents
from services.policy.publishing import PublishingServicer
from services.policy.service import PolicyService
from yidi.policy.v1 import policy_pb2, publishing_pb2

MINUTE = 60_000


async def nothing(_: Any) -> Any:
    pytest.fail("nobody asked for past settlements")


@pytest.fixture
async def service(database: Database, clock: ManualClock) -> PolicyService:
    made = PolicyService(database=database, clock=clock)
    await made.refresh()
    return made


@pytest.fixture
def desk(database: Database, clock: ManualClock, service: PolicyService) -> PublishingServicer:
    return PublishingServicer(database=database, clock=clock, computing=service, past=nothing)


def refusal_of(found: pytest.ExceptionInfo[Refusal]) -> str:
    return found.value.name


async def test_from_draft_to_publication_two_people_are_needed(
    desk: PublishingServicer, service: PolicyService, clock: ManualClock
) -> None:
    """Whoever wrote it may publish it, but not before another has approved it."""
    policy = await draft(desk, written())
    assert policy.state == publishing_pb2.POLICY_STATE_DRAFT
    assert policy.effective_to == ""
    with pytest.raises(Refusal) as found:
        await review(desk, policy, by=LI)
    assert refusal_of(found) == "POLICY_SECOND_PERSON"
    with pytest.raises(Refusal) as found:
        await publish(desk, policy, by=LI)
    assert refusal_of(found) == "POLICY_STATE_WRONG"
    approved = await review(desk, policy, by=WANG)
    assert approved.state == publishing_pb2.POLICY_STATE_REVIEWED
    published = await publish(desk, policy, by=LI)
    assert published.state == publishing_pb2.POLICY_STATE_PUBLISHED
    assert published.publication_number == 1
    assert published.activate_time.ToMilliseconds() == clock.ms + MINUTE
    assert [(event.state, event.actor.rsplit("/", 1)[1]) for event in published.history] == [
        (publishing_pb2.POLICY_STATE_DRAFT, "li"),
        (publishing_pb2.POLICY_STATE_REVIEWED, "wang"),
        (publishing_pb2.POLICY_STATE_PUBLISHED, "li"),
    ]
    assert published.history[1].comment == "已与原文核对"
    clock.ms += MINUTE
    await service.refresh()
    assert await funds_pay(service, clock) == 800_000


async def test_the_database_itself_wants_a_second_person(
    desk: PublishingServicer, database: Database
) -> None:
    """Keys and checks hold it, whatever the program does."""
    policy = await draft(desk, written())
    author = LI.caller.spiffe_id
    with pytest.raises(asyncpg.CheckViolationError):
        await database.run(
            "INSERT INTO policy.review VALUES ($1::uuid, $2, $2, true, '', now())",
            policy.draft_id,
            author,
        )
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await database.run(
            "INSERT INTO policy.review VALUES ($1::uuid, 'x', $2, true, '', now())",
            policy.draft_id,
            author,
        )
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await database.run(
            """
            INSERT INTO policy.document (publication, area, insurance, version, effective_from,
                effective_to, content, hash, published_at, activated_at, draft_id, approved)
            SELECT 1, area, insurance, version, effective_from, effective_to, content, hash, now(),
                   now(), draft_id, true FROM policy.draft
            """
        )


async def test_both_replicas_change_over_at_the_instant(
    desk: PublishingServicer, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    """A replica hears a publication at its next poll and uses it from the instant on; a replica
    that starts later finds the same."""
    await load_documents(database, in_folder(tmp_path, a=written()), clock)
    replicas = [PolicyService(database=database, clock=clock) for _ in range(2)]
    for replica in replicas:
        await replica.refresh()
    policy = await draft(desk, written(fund("90%"), version="2"))
    await review(desk, policy)
    with pytest.raises(Refusal) as found:
        await publish(desk, policy, activate_ms=clock.ms + MINUTE - 1)
    assert refusal_of(found) == "POLICY_ACTIVATION_TOO_SOON"
    await publish(desk, policy, activate_ms=clock.ms + 2 * MINUTE)
    clock.ms += 2 * MINUTE - 1
    for replica in replicas:
        await replica.refresh()
        assert await funds_pay(replica, clock) == 800_000
    clock.ms += 1
    restarted = PolicyService(database=database, clock=clock)
    await restarted.refresh()
    for replica in (*replicas, restarted):
        assert await funds_pay(replica, clock) == 972_000


async def test_a_retired_version_no_longer_holds_and_still_computes(
    desk: PublishingServicer, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    """From a day of visits on, after the notice; by its name and its hash it is there for ever."""
    await load_documents(database, in_folder(tmp_path, a=written()), clock)
    service = PolicyService(database=database, clock=clock)
    await service.refresh()
    request = publishing_pb2.RetirePolicyRequest(
        request_id="retire-0001", published=PUBLISHED, from_day="2026-11-01", comment="文件废止"
    )
    retired = (await desk.RetirePolicy(request, LI)).policy
    assert retired.state == publishing_pb2.POLICY_STATE_RETIRED
    assert retired.retired_from == "2026-11-01"
    await service.refresh()
    assert await funds_pay(service, clock) == 800_000
    clock.ms += MINUTE
    await service.refresh()
    before = {"start_date": "2026-10-30", "end_date": "2026-10-31"}
    assert await funds_pay(service, clock, **before) == 800_000
    unit = a_unit(clock)
    [case] = (await compute(service, unit))[unit.id].cases
    assert Refusal.from_status(case.error).name == "POLICY_NOT_FOUND"
    document = service.book.with_hash(retired.hash)
    assert document is not None
    assert service.book.version(AREA, "310", "1") is document
    [covered] = (await service.GetCoverage(policy_pb2.GetCoverageRequest(), LI)).policies
    assert covered.retired_from == "2026-11-01"
    request.request_id = "retire-0002"
    with pytest.raises(Refusal) as found:
        await desk.RetirePolicy(request, WANG)
    assert refusal_of(found) == "POLICY_STATE_WRONG"


async def test_nobody_retires_what_they_published(
    desk: PublishingServicer, clock: ManualClock
) -> None:
    policy = await draft(desk, written())
    await review(desk, policy)
    await publish(desk, policy, by=ZHAO)
    request = publishing_pb2.RetirePolicyRequest(
        request_id="retire-0001", published=PUBLISHED, from_day="2026-12-01", comment="更正"
    )
    with pytest.raises(Refusal) as found:
        await desk.RetirePolicy(request, ZHAO)
    assert refusal_of(found) == "POLICY_SECOND_PERSON"
    await desk.RetirePolicy(request, WANG)


async def test_a_document_with_errors_is_no_draft_and_all_of_them_are_told(
    desk: PublishingServicer, database: Database
) -> None:
    text = written(fund("80")).replace("source: example", "source: nowhere")
    request = publishing_pb2.CreateDraftRequest(
        request_id="draft-0001", written=text, insured_area=AREA
    )
    response = await desk.CreateDraft(request, LI)
    assert not response.HasField("policy")
    validated = await desk.ValidatePolicy(publishing_pb2.ValidatePolicyRequest(written=text), LI)
    assert list(response.findings) == list(validated.findings)
    errors = [each for each in response.findings if each.severity == publishing_pb2.SEVERITY_ERROR]
    assert errors
    assert all(each.line > 1 and each.path.startswith("benefits.") for each in errors)
    assert not await database.run("SELECT FROM policy.request_key")
    good = await desk.ValidatePolicy(publishing_pb2.ValidatePolicyRequest(written=written()), LI)
    assert good.hash == reading.examine(written()).document.hash  # type: ignore[union-attr]


async def test_a_hundred_mistakes_are_told_at_once(desk: PublishingServicer) -> None:
    rows = [row("80", ages=f"{age}") for age in range(100)]
    response = await desk.ValidatePolicy(
        publishing_pb2.ValidatePolicyRequest(written=written(fund(*rows))), LI
    )
    mistakes = [each for each in response.findings if each.path.endswith(".value")]
    assert len({each.line for each in mistakes}) == 100
    assert response.hash == b""


async def test_warnings_are_kept_with_the_draft(desk: PublishingServicer) -> None:
    text = written().replace("url: https://example.org", "")
    policy = await draft(desk, text)
    assert policy.warnings
    assert all(each.severity == publishing_pb2.SEVERITY_WARNING for each in policy.warnings)
    selector = publishing_pb2.PolicySelector(draft_id=policy.draft_id)
    shown = await desk.GetPolicy(publishing_pb2.GetPolicyRequest(policy=selector), LI)
    assert shown.policy == policy
    assert shown.written == text
    assert content_hash(shown.canonical) == policy.hash


async def test_a_draft_of_another_area_or_of_a_published_version_is_refused(
    desk: PublishingServicer, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    with pytest.raises(Refusal) as found:
        await draft(desk, written(area="110000"))
    assert refusal_of(found) == "FOREIGN_CODE"
    await load_documents(database, in_folder(tmp_path, a=written()), clock)
    with pytest.raises(Refusal) as found:
        await draft(desk, written(fund("81%")))
    assert refusal_of(found) == "POLICY_VERSION_PUBLISHED"


async def test_what_was_approved_is_what_is_published(desk: PublishingServicer) -> None:
    """A verdict names the hash that was read; a refused draft is refused for good."""
    policy = await draft(desk, written())
    other = publishing_pb2.PolicyVersion(draft_id=policy.draft_id, hash=bytes(32))
    with pytest.raises(Refusal) as found:
        await review(desk, other)
    assert refusal_of(found) == "MESSAGE_INVALID"
    refused = await review(desk, policy, approve=False)
    assert refused.state == publishing_pb2.POLICY_STATE_REFUSED
    with pytest.raises(Refusal) as found:
        await publish(desk, policy)
    assert refusal_of(found) == "POLICY_STATE_WRONG"
    with pytest.raises(Refusal) as found:
        await review(desk, policy, by=ZHAO, request_id="review-0002")
    assert refusal_of(found) == "POLICY_STATE_WRONG"
    again = await draft(desk, written(), request_id="draft-0002")
    assert again.hash == policy.hash
    assert again.draft_id != policy.draft_id


async def test_a_draft_that_the_check_now_refuses_is_not_published(
    desk: PublishingServicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = await draft(desk, written())
    await review(desk, policy)
    stricter = reading.Examined(None, {}, (reading.Problem("error", 3, "benefits", "new rule"),))
    monkeypatch.setattr("services.policy.publishing.examine", lambda _: stricter)
    with pytest.raises(Refusal) as found:
        await publish(desk, policy)
    assert refusal_of(found) == "POLICY_INVALID"
    assert found.value.violations[0].field == "line 3 benefits"


async def test_a_repetition_gets_the_stored_answer(
    desk: PublishingServicer, database: Database, clock: ManualClock
) -> None:
    """PROTOCOL §6: one request id is one change of one caller, for ever."""
    policy = await draft(desk, written())
    clock.ms += 5_000
    assert await draft(desk, written()) == policy
    with pytest.raises(Refusal) as found:
        await draft(desk, written(fund("70%")))
    assert refusal_of(found) == "REQUEST_ID_REUSED"
    other = await draft(desk, written(), by=WANG)
    assert other.draft_id != policy.draft_id
    approved = await review(desk, policy)
    assert await review(desk, policy) == approved
    published = await publish(desk, policy)
    clock.ms += 5_000
    assert await publish(desk, policy) == published
    actions = await database.run("SELECT action, actor, digest FROM policy.audit ORDER BY id")
    assert [row["action"] for row in actions] == ["draft", "draft", "review", "publish"]
    assert {row["digest"] for row in actions} == {policy.hash}


async def test_of_two_at_once_one_wins(desk: PublishingServicer, database: Database) -> None:
    policy = await draft(desk, written())
    verdicts = await asyncio.gather(
        *(
            review(desk, policy, by=by, approve=by is WANG, request_id=f"review-{by.caller.name}")
            for by in (WANG, ZHAO)
        ),
        return_exceptions=True,
    )
    lost = [each for each in verdicts if isinstance(each, Refusal)]
    assert [each.name for each in lost] == ["POLICY_STATE_WRONG"]
    if not await database.run("SELECT FROM policy.review WHERE approved"):
        policy = await draft(desk, written(), request_id="draft-0002")
        await review(desk, policy, request_id="review-0002")
    published = await asyncio.gather(
        *(
            publish(desk, policy, by=by, request_id=f"publish-{by.caller.name}")
            for by in (LI, WANG, ZHAO)
        ),
        return_exceptions=True,
    )
    lost = [each for each in published if isinstance(each, Refusal)]
    assert {each.name for each in lost} == {"POLICY_STATE_WRONG"}
    assert len(lost) == 2
    again = await draft(desk, written(version="2"), request_id="draft-0003")
    await review(desk, again, request_id="review-0003")
    same = await asyncio.gather(*(publish(desk, again, request_id="same-0001") for _ in range(4)))
    assert {each.publication_number for each in same} == {2}


async def test_two_drafts_of_one_version_are_published_once(desk: PublishingServicer) -> None:
    policies = []
    for number, share in enumerate(("80%", "81%")):
        policy = await draft(desk, written(fund(share)), request_id=f"draft-000{number}")
        await review(desk, policy, request_id=f"review-000{number}")
        policies.append(policy)
    results = await asyncio.gather(
        *(
            publish(desk, policy, request_id=f"publish-000{number}")
            for number, policy in enumerate(policies)
        ),
        return_exceptions=True,
    )
    lost = [each for each in results if isinstance(each, Refusal)]
    assert [each.name for each in lost] == ["POLICY_VERSION_PUBLISHED"]


async def test_documents_are_listed_by_state_and_page(
    desk: PublishingServicer, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    loaded = {f"p{number}": written(version=f"0{number}") for number in range(3)}
    await load_documents(database, in_folder(tmp_path, **loaded), clock)
    for number in range(2):
        text = written(version=f"1{number}")
        await draft(desk, text, request_id=f"draft-000{number}")
    request = publishing_pb2.ListPoliciesRequest(insured_area=AREA, page_size=2)
    seen: list[str] = []
    for _ in range(3):
        response = await desk.ListPolicies(request, LI)
        seen += [policy.version for policy in response.policies]
        request.page_token = response.next_page_token
    assert seen == ["00", "01", "02", "10", "11"]
    assert request.page_token == ""
    drafts = publishing_pb2.ListPoliciesRequest(states=[publishing_pb2.POLICY_STATE_DRAFT])
    listed = (await desk.ListPolicies(drafts, LI)).policies
    assert [policy.version for policy in listed] == ["10", "11"]
    elsewhere = publishing_pb2.ListPoliciesRequest(insured_area="440100")
    assert not (await desk.ListPolicies(elsewhere, LI)).policies


async def test_what_differs_is_said_in_plain_words(
    desk: PublishingServicer, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    await load_documents(database, in_folder(tmp_path, a=written()), clock)
    policy = await draft(desk, written(deductible("900元"), fund("85%"), version="2"))
    request = publishing_pb2.DiffPoliciesRequest(
        before=publishing_pb2.PolicySelector(published=PUBLISHED),
        after=publishing_pb2.PolicySelector(draft_id=policy.draft_id),
    )
    changes = (await desk.DiffPolicies(request, LI)).changes
    told = "\n".join(change.text for change in changes)
    assert "800元" in told
    assert "900元" in told
    assert "85%" in told
    assert any(change.path.startswith("benefits.inpatient") for change in changes)


async def test_what_is_not_there_is_said_so(desk: PublishingServicer, clock: ManualClock) -> None:
    for selector in (
        publishing_pb2.PolicySelector(draft_id=new_id(clock)),
        publishing_pb2.PolicySelector(published=PUBLISHED),
    ):
        with pytest.raises(Refusal) as found:
            await desk.GetPolicy(publishing_pb2.GetPolicyRequest(policy=selector), LI)
        assert refusal_of(found) == "POLICY_VERSION_NOT_FOUND"
