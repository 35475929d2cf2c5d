"""BatchResolve: QUERY proves nothing, ABORT makes final (PROTOCOL §1)."""

from __future__ import annotations

import asyncio

from healing import Healing
from world import envelope, reason

from infra.runtime.clock import id_milliseconds
from yidi.common.v1 import envelope_pb2, types_pb2

QUERY = types_pb2.RESOLVE_INTENT_QUERY
ABORTED = types_pb2.DECISION_STATE_ABORTED


async def test_unknown_proves_nothing(healing: Healing) -> None:
    """A query for an id without a row writes nothing; the commit is decided afterwards."""
    [patient] = await healing.world.patients(1)
    sent = envelope(patient, healing.clock)
    [result] = await healing.resolve([sent], QUERY)
    assert result.unknown
    assert await healing.decision(sent.id) is None
    assert (await healing.exchange_one(sent)).HasField("committed")
    [result] = await healing.resolve([sent], QUERY)
    decided = await healing.decision(sent.id)
    assert decided is not None
    assert result.committed.header == decided["outcome_header"]


async def test_a_commit_after_abort_returns_the_tombstone_and_pays_nothing(
    healing: Healing,
) -> None:
    """One id, one decision: the tombstone is a row like any other, for ever."""
    [patient] = await healing.world.patients(1)
    sent = envelope(patient, healing.clock)
    [first] = await healing.resolve([sent])
    tombstone = envelope_pb2.Rejection.FromString(first.aborted)
    assert (tombstone.settlement_id, tombstone.state) == (sent.id, ABORTED)
    assert reason(tombstone.status) == "SETTLEMENT_ABORTED"
    assert tombstone.request_digest == sent.payload_digest
    for _ in range(2):
        assert (await healing.exchange_one(sent)).aborted == first.aborted
        for intent in (QUERY, types_pb2.RESOLVE_INTENT_ABORT):
            assert (await healing.resolve([sent], intent))[0].aborted == first.aborted
    row = await healing.decision(sent.id)
    assert row is not None
    assert (row["state"], row["kept"], row["outcome_digest"]) == ("ABORTED", "{}", None)
    admin = await healing.world.admin("440000")
    assert not await admin.fetchval(
        "SELECT count(*) FROM settlement.accumulator WHERE person_id = $1::uuid", patient.person_id
    )
    assert (
        await admin.fetchval(
            "SELECT count(*) FROM settlement.audit WHERE subject = $1::uuid", sent.id
        )
        == 1
    )


async def test_abort_returns_the_row_there_is(healing: Healing) -> None:
    """COMMITTED and REJECTED stay what they are; another digest under an id is an alarm."""
    [patient] = await healing.world.patients(1)
    committed = envelope(patient, healing.clock)
    [stranger] = await healing.world.patients(1, places=(), person_class=1)
    refused = envelope(stranger, healing.clock)
    answers = [await healing.exchange_one(one) for one in (committed, refused)]
    assert answers[0].HasField("committed")
    assert answers[1].HasField("rejected"), answers[1]
    found = await healing.resolve([committed, refused])
    assert found[0].committed == answers[0].committed
    assert found[1].rejected == answers[1].rejected
    for one in (committed, refused):
        one.payload_digest = bytes(32)
    reused = await healing.resolve([committed, refused])
    assert [reason(one.error) for one in reused] == ["SETTLEMENT_ID_REUSED"] * 2


async def test_no_window_holds_for_questions_and_one_holds_for_commits(healing: Healing) -> None:
    """A late commit cannot cross a cut-off; asking never is too late (CLOCK_SKEW)."""
    [patient] = await healing.world.patients(1)
    sent = envelope(patient, healing.clock)
    await healing.jump(121_000)
    assert healing.clock.ms - id_milliseconds(sent.id) > 120_000
    assert reason((await healing.exchange_one(sent)).error) == "CLOCK_SKEW"
    assert await healing.decision(sent.id) is None
    assert (await healing.resolve([sent]))[0].HasField("aborted")


async def test_a_commit_and_an_abort_that_race_have_one_outcome(healing: Healing) -> None:
    """Twenty pairs at once; whoever asks afterwards hears the same."""
    patients = await healing.world.patients(20)
    sent = [envelope(patient, healing.clock) for patient in patients]
    answers = await asyncio.gather(
        *(healing.exchange_one(one) for one in sent), *(healing.resolve([one]) for one in sent)
    )
    outcomes = set()
    for number, one in enumerate(sent):
        commit, [abort] = answers[number], answers[20 + number]
        kind = commit.WhichOneof("outcome")
        assert kind == abort.WhichOneof("outcome"), reason(commit.error)
        assert kind in ("committed", "aborted")
        assert getattr(commit, kind) == getattr(abort, kind)
        row = await healing.decision(one.id)
        assert row is not None
        assert row["state"].lower() == kind
        outcomes.add(kind)
    stays = await (await healing.world.admin("440000")).fetchval(
        "SELECT coalesce(sum(stay_count), 0) FROM settlement.accumulator "
        "WHERE person_id = ANY($1::uuid[])",
        [patient.person_id for patient in patients],
    )
    assert stays == sum(answer.HasField("committed") for answer in answers[:20])
