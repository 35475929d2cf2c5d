"""The states at the care place, all 25 pairs on real rows, and the small rules of the domain."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import BEIJING, World

from infra.runtime.clock import instant, new_id
from infra.runtime.database import Database
from infra.runtime.journal import AMOUNTS
from services.settlement.domain.balance import FIELDS, ZERO, Chain, Row, add
from services.settlement.domain.quote import change_cause, quote_digest
from services.settlement.domain.states import BILL_FREE, TRANSITIONS, State, allowed
from services.settlement.domain.window import AHEAD_MS, BEHIND_MS, inside_window
from services.settlement.store.care import CareStore, Closing, Opening
from yidi.common.v1 import envelope_pb2

ALLOWED = {
    "PENDING": {"COMPLETED", "REJECTED", "IN_DOUBT"},
    "IN_DOUBT": {"COMPLETED", "REJECTED", "ABORTED"},
    "COMPLETED": set(),
    "REJECTED": set(),
    "ABORTED": set(),
}
"""PROTOCOL §1, written down a second time."""


@pytest.fixture(scope="module")
async def care(sites: World) -> AsyncIterator[CareStore]:
    async with Database.open(sites.settings[BEIJING], "settlement") as database:
        yield CareStore(database)


def _opening(sites: World) -> Opening:
    return Opening(
        settlement_id=new_id(sites.clock),
        caller="spiffe://yidi/site/110000/institution/H11010100001",
        method="Settle",
        request_id=f"req-{uuid4()}",
        body_digest=bytes(32),
        payload_digest=bytes(32),
        institution="H11010100001",
        visit_id=uuid4().hex,
        bill_id="B1",
        care_area=BEIJING,
        care_site=BEIJING,
        insured_area="440800",
        insured_site="440000",
        route=3,
        kind=2,
        undoes=None,
        request=b"kept",
        deadline_at=instant(sites.clock),
        operator="",
        traceparent="",
    )


def _closing(settlement_id: str, state: State) -> Closing:
    if state is not State.COMPLETED:
        return Closing(settlement_id, state, None, None, b"reason", b"")
    header = envelope_pb2.OutcomeHeader(
        settlement_id=settlement_id,
        business_day="2026-11-21",
        care_site=BEIJING,
        insured_site="440000",
    )
    raw = header.SerializeToString()
    outcome = envelope_pb2.Outcome(header=raw, digest=hashlib.sha256(raw).digest())
    return Closing(settlement_id, state, header, outcome, None, b"")


@pytest.mark.parametrize("old", list(State))
@pytest.mark.parametrize("new", list(State))
async def test_every_pair_of_states(sites: World, care: CareStore, old: State, new: State) -> None:
    """A change that is not allowed changes nothing: journal, request id, bill, audit (S15)."""
    opening = _opening(sites)
    [opened] = await care.open([opening], instant(sites.clock))
    assert opened["opened"]
    admin = await sites.admin(BEIJING)
    digest = b"stored" if old is State.COMPLETED else None
    await admin.execute(
        """UPDATE settlement.care_journal SET state = $2, outcome_digest = $3
           WHERE settlement_id = $1::uuid""",
        opening.settlement_id,
        old.value,
        digest,
    )
    for table in ("request_key", "bill"):
        await admin.execute(
            f"UPDATE settlement.{table} SET state = $2 WHERE settlement_id = $1::uuid",
            opening.settlement_id,
            old.value,
        )
    changed = await care.close([_closing(opening.settlement_id, new)], instant(sites.clock))
    expected = new.value in ALLOWED[old.value]
    assert allowed(old, new) == expected
    assert changed == ({opening.settlement_id} if expected else set())
    after = new.value if expected else old.value
    for table in ("care_journal", "request_key", "bill"):
        state = await admin.fetchval(
            f"SELECT state FROM settlement.{table} WHERE settlement_id = $1::uuid",
            opening.settlement_id,
        )
        assert state == after
    audited = await admin.fetchval(
        "SELECT count(*) FROM settlement.audit WHERE subject = $1::uuid", opening.settlement_id
    )
    assert audited == 1 + expected
    # The bill is free for another settlement exactly when this one came to nothing.
    rival = _opening(sites)
    rival = Opening(
        **{n: getattr(rival, n) for n in Opening.__slots__} | {"visit_id": opening.visit_id}
    )
    [row] = await care.open([rival], instant(sites.clock))
    assert row["opened"] == (State(after) in BILL_FREE)


async def test_whoever_loses_gets_the_stored_row(sites: World, care: CareStore) -> None:
    """Two closings of one row in a race: one wins, both see the same state afterwards."""
    for _ in range(10):
        opening = _opening(sites)
        await care.open([opening], instant(sites.clock))
        wins = await asyncio.gather(
            *(
                care.close([_closing(opening.settlement_id, state)], instant(sites.clock))
                for state in (State.COMPLETED, State.REJECTED)
            )
        )
        assert sorted(map(len, wins)) == [0, 1]


async def test_rivals_of_one_batch_go_one_after_the_other(sites: World, care: CareStore) -> None:
    """The same bill twice in one batch: the first gets it, the second is told whose it is."""
    first, second = _opening(sites), _opening(sites)
    second = Opening(
        **{n: getattr(second, n) for n in Opening.__slots__} | {"visit_id": first.visit_id}
    )
    rows = {r["settlement_id"]: r for r in await care.open([first, second], instant(sites.clock))}
    assert rows[first.settlement_id]["opened"]
    assert not rows[second.settlement_id]["opened"]
    assert rows[second.settlement_id]["bill_settlement_id"] == first.settlement_id


def test_terminal_states_are_terminal() -> None:
    assert {old for old, _ in TRANSITIONS} == {State.PENDING, State.IN_DOUBT}


@pytest.mark.parametrize(
    ("made", "inside"),
    [
        (-BEHIND_MS - 1, False),
        (-BEHIND_MS, True),
        (0, True),
        (AHEAD_MS, True),
        (AHEAD_MS + 1, False),
    ],
)
def test_the_edges_of_the_commit_window(made: int, inside: bool) -> None:
    """−120 s/+5 s, edges included (PROTOCOL §1)."""
    now = 1_795_000_000_000
    assert (BEHIND_MS, AHEAD_MS) == (120_000, 5_000)
    assert inside_window(now + made, now) is inside


AMOUNT_SETS = st.fixed_dictionaries({name: st.integers(-(10**12), 10**12) for name in AMOUNTS})


@given(
    one=AMOUNT_SETS,
    other=AMOUNT_SETS,
    versions=st.tuples(st.text(max_size=8), st.text(max_size=8)),
    hashes=st.tuples(st.binary(max_size=4), st.binary(max_size=4)),
)
def test_a_quote_digest_binds_everything_the_patient_was_told(
    one: dict[str, int],
    other: dict[str, int],
    versions: tuple[str, str],
    hashes: tuple[bytes, bytes],
) -> None:
    """Equal digests exactly for equal facts, whatever the order of the amounts (PROTOCOL §6)."""
    body = bytes(32)
    reordered = dict(reversed(one.items()))
    first = quote_digest(body, versions[0], hashes[0], one)
    assert len(first) == 32
    assert first == quote_digest(body, versions[0], hashes[0], reordered)
    second = quote_digest(body, versions[1], hashes[1], other)
    same = (versions[0], hashes[0], one) == (versions[1], hashes[1], other)
    assert (first == second) == same


@given(AMOUNT_SETS, st.sampled_from(AMOUNTS), st.integers(1, 10**6))
def test_one_fen_more_is_another_digest(amounts: dict[str, int], name: str, more: int) -> None:
    changed = amounts | {name: amounts[name] + more}
    assert quote_digest(b"", "", b"", amounts) != quote_digest(b"", "", b"", changed)


def test_the_cause_names_what_changed_first() -> None:
    quoted = {"fund_total_fen": 10_000, "account_fen": 0, "cash_fen": -5}
    computed = {"fund_total_fen": 9_001, "account_fen": 0, "cash_fen": 994}
    arguments = {"quoted": quoted, "computed": computed, "policy": b"p", "catalogue": "c"}
    text = change_cause(quoted_catalogue="c", quoted_policy=b"p", **arguments)
    assert text == (
        "年度累计或单据内容已变化，基金支付由 100.00 元变为 90.01 元，现金由 -0.05 元变为 9.94 元"
    )
    assert change_cause(quoted_catalogue="b", quoted_policy=b"o", **arguments).startswith("就医地")
    assert change_cause(quoted_catalogue="", quoted_policy=b"o", **arguments).startswith("参保地")


DELTAS = st.lists(
    st.dictionaries(
        st.sampled_from(["2026", "2026-outpatient", "2027"]),
        st.tuples(*(st.integers(-(10**9), 10**9) for _ in FIELDS)),
        min_size=1,
    ),
    max_size=6,
)


@given(DELTAS)
def test_accumulators_are_sums_of_deltas(deltas: list[dict[str, tuple[int, ...]]]) -> None:
    """Rebuild = sum, undo = negate: applying the negation leads back (PROTOCOL §3)."""
    opening = tuple(range(1, len(FIELDS) + 1))
    chain = Chain({"2026": Row(4, opening)})
    kept = [one for delta in deltas for one in chain.apply(delta)]
    for period, values in chain.values.items():
        total = opening if period == "2026" else ZERO
        for delta in deltas:
            total = add(total, delta.get(period, ZERO))
        assert values == total
    assert {one["version"] for one in kept if one["period"] == "2026"} <= {4}
    assert {one["version"] for one in kept if one["period"] != "2026"} <= {-1}
    for delta in reversed(deltas):
        chain.apply({period: tuple(-v for v in values) for period, values in delta.items()})
    for period, values in chain.values.items():
        assert values == (opening if period == "2026" else ZERO)
