"""目录对照: submitted, reviewed, withdrawn, and what a day makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import asyncpg
import pytest
from downgrading import downgrade
from hypothesis import given
from hypothesis import strategies as st
from registry_world import (
    ASPIRIN,
    GATEWAY,
    HOSPITAL,
    OPERATOR,
    OTHER_HOSPITAL,
    SITE,
    STENT,
    mapping,
    new_id,
    refused,
    reviewing,
    submitting,
    withdrawing,
)

from infra.runtime.clock import ManualClock
from infra.runtime.config import Settings
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from infra.runtime.migrate import migrate
from services.catalog.domain.mapping import (
    MappingSpell,
    MappingState,
    RecordedMapping,
    mapped_code,
    timeline,
)
from services.catalog.load import load_catalogue
from services.catalog.registry_service import RegistryService
from services.catalog.samples.generate import FOLDER
from services.catalog.store import SCHEMA, read_snapshot
from yidi.catalog.v1 import registry_pb2
from yidi.common.v1 import types_pb2

PENDING, APPROVED, REFUSED, WITHDRAWN = MappingState
START = date(2026, 1, 1)


def at(day: int) -> date:
    return START + timedelta(days=day)


def recorded(
    number: int,
    code: str,
    first: int,
    last: int,
    state: MappingState = APPROVED,
    since: int | None = None,
) -> RecordedMapping:
    return RecordedMapping(
        number, code, at(first), at(last), state, None if since is None else at(since)
    )


def said(mappings: Sequence[RecordedMapping], days: int = 12) -> list[str]:
    """Day by day: a code, p(ending), r(efused), w(ithdrawn), or nothing."""
    spells = timeline(mappings)
    found = [mapped_code(spells, at(day)) for day in range(days)]
    return [
        each.name[0].lower() if isinstance(each, MappingState) else each or "" for each in found
    ]


@pytest.mark.parametrize(
    ("mappings", "days"),
    [
        ([], "------------"),
        ([recorded(1, "A", 2, 5)], "--AAAA------"),
        ([recorded(1, "A", 2, 5, PENDING)], "--pppp------"),
        ([recorded(1, "A", 2, 5, REFUSED)], "--rrrr------"),
        ([recorded(1, "A", 2, 9), recorded(2, "B", 5, 9, PENDING)], "--AAAAAAAA--"),
        ([recorded(1, "A", 2, 9), recorded(2, "B", 5, 7)], "--AAABBB----"),
        ([recorded(1, "A", 2, 9), recorded(2, "B", 1, 3)], "-BBB--------"),
        ([recorded(1, "A", 2, 9), recorded(2, "B", 2, 9)], "--BBBBBBBB--"),
        ([recorded(1, "A", 5, 9), recorded(2, "B", 1, 3, PENDING)], "-ppp-AAAAA--"),
        ([recorded(1, "A", 2, 9, WITHDRAWN, 5)], "--AAAwwwww--"),
        ([recorded(1, "A", 2, 9, WITHDRAWN, 2)], "--wwwwwwww--"),
        ([recorded(1, "A", 2, 9, WITHDRAWN, 2), recorded(2, "B", 4, 9)], "--wwBBBBBB--"),
        (
            [recorded(1, "A", 0, 9, WITHDRAWN, 6), recorded(2, "B", 4, 9, WITHDRAWN, 6)],
            "AAAABBwwww--",
        ),
        ([recorded(1, "A", 0, 9), recorded(2, "B", 4, 9, WITHDRAWN, 4)], "AAAAAAAAAA--"),
        ([recorded(1, "A", 0, 9, PENDING), recorded(2, "B", 4, 9, REFUSED)], "pppprrrrrr--"),
    ],
)
def test_what_a_day_makes_of_the_mappings(mappings: list[RecordedMapping], days: str) -> None:
    assert "".join(each or "-" for each in said(mappings)) == days


_MAPPINGS = st.builds(
    lambda code, first, days, state, since: (code, first, first + days, state, since),
    st.sampled_from("ABC"),
    st.integers(0, 10),
    st.integers(0, 6),
    st.sampled_from(MappingState),
    st.integers(0, 16),
)


@given(st.lists(_MAPPINGS, max_size=6))
def test_the_mapping_recorded_last_decides(
    rows: list[tuple[str, int, int, MappingState, int]],
) -> None:
    """Of those approved on a day the last; none that a later one has ended before."""
    made = [
        recorded(
            number, code, first, last, state, max(since, first) if state is WITHDRAWN else None
        )
        for number, (code, first, last, state, since) in enumerate(rows)
    ]
    counting = [
        one for one in made if one.state in (APPROVED, WITHDRAWN) and one.first_day <= one.end
    ]
    spells = timeline(made)
    for day in range(18):
        begun = [one for one in counting if one.first_day <= at(day)]
        expected = begun[-1].national_code if begun and at(day) <= begun[-1].end else None
        found = mapped_code(spells, at(day))
        assert (found if isinstance(found, str) else None) == expected


async def submitted(registry: RegistryService, *mappings: registry_pb2.ItemMapping) -> list[int]:
    answer = await registry.SubmitMappings(submitting(*mappings), GATEWAY)
    return [one.mapping_id for one in answer.mappings]


async def listed(registry: RegistryService, **asked: Any) -> list[registry_pb2.MappingRecord]:
    request = registry_pb2.ListMappingsRequest(**asked)
    found: list[registry_pb2.MappingRecord] = []
    while True:
        answer = await registry.ListMappings(request, GATEWAY)
        found += answer.mappings
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


async def spells(database: Database, item_code: str) -> tuple[MappingSpell, ...]:
    return (await read_snapshot(database, None)).mapped[HOSPITAL][item_code]


async def test_a_mapping_counts_once_it_is_approved(
    registry: RegistryService, database: Database, clock: ManualClock
) -> None:
    """S0-38: each line by the care place's scope, which the mapping leads to."""
    before = await read_snapshot(database, None)
    first, second = mapping("N1"), mapping("N2", STENT, end="2026-06-30")
    second.item_name, second.list_type = "支架", types_pb2.LIST_TYPE_CONSUMABLE
    request = submitting(first, second)
    answer = await registry.SubmitMappings(request, GATEWAY)
    assert [one.mapping for one in answer.mappings] == [first, second]
    assert {(one.state, one.institution) for one in answer.mappings} == {
        (registry_pb2.MAPPING_STATE_PENDING, HOSPITAL)
    }
    assert answer.mappings[0].state_time.ToMilliseconds() == clock.now_ms()
    assert await registry.SubmitMappings(request, GATEWAY) == answer, "the same request again"
    pending = await read_snapshot(database, before)
    assert mapped_code(pending.mapped[HOSPITAL]["N1"], START) is PENDING
    assert pending.mapped[OTHER_HOSPITAL] is before.mapped[OTHER_HOSPITAL], "read again for nothing"

    ids = [one.mapping_id for one in answer.mappings]
    clock.ms += 1_000
    reviewed = await registry.ReviewMappings(reviewing(*reversed(ids)), OPERATOR)
    assert [one.mapping_id for one in reviewed.mappings] == ids[::-1]
    assert {one.state for one in reviewed.mappings} == {registry_pb2.MAPPING_STATE_APPROVED}
    assert reviewed.mappings[0].state_time.ToMilliseconds() == clock.now_ms()
    after = await read_snapshot(database, pending)
    assert mapped_code(after.mapped[HOSPITAL]["N1"], START) == ASPIRIN
    assert mapped_code(after.mapped[HOSPITAL]["N2"], date(2026, 7, 1)) is None
    assert after == await read_snapshot(database, None), "step by step or at once"
    assert len(await listed(registry, institution=HOSPITAL, item_code="N1")) == 1


async def test_a_new_mapping_ends_the_loaded_one_when_it_is_approved(
    registry: RegistryService, database: Database, clock: ManualClock
) -> None:
    [loaded] = await spells(database, "Y013")
    assert loaded == (ASPIRIN, date.min, date.max, APPROVED)
    [number] = await submitted(registry, mapping("Y013", STENT, "2026-05-01"))
    assert mapped_code(await spells(database, "Y013"), date(2026, 6, 1)) == ASPIRIN
    await registry.ReviewMappings(reviewing(number), OPERATOR)
    now = await spells(database, "Y013")
    days = (date(2026, 4, 30), date(2026, 5, 1))
    assert [mapped_code(now, day) for day in days] == [ASPIRIN, STENT]
    # Loading what was loaded once does not undo what the institution said since.
    assert (await load_catalogue(database, FOLDER / SITE, clock)).institution_items == 0
    assert await spells(database, "Y013") == now


async def test_a_refused_mapping_says_why_and_changes_nothing(
    registry: RegistryService, database: Database
) -> None:
    [number] = await submitted(registry, mapping("Y013", STENT))
    fault = await refused(registry.ReviewMappings(reviewing(number, approve=False), OPERATOR))
    assert (fault.name, "须说明原因" in fault.message) == ("MAPPING_CHANGE_REFUSED", True)
    request = reviewing(number, approve=False, reason="剂型不符")
    [record] = (await registry.ReviewMappings(request, OPERATOR)).mappings
    assert (record.state, record.reason) == (registry_pb2.MAPPING_STATE_REFUSED, "剂型不符")
    assert mapped_code(await spells(database, "Y013"), START) == ASPIRIN
    for ids, cause in (([number], "不在待审核状态"), ([999_999], "没有编号为 999999 的对照")):
        fault = await refused(registry.ReviewMappings(reviewing(*ids), OPERATOR))
        assert cause in fault.message
    fresh = await submitted(registry, mapping("N1"))
    await refused(registry.ReviewMappings(reviewing(*fresh, number), OPERATOR))
    [still] = await listed(registry, item_code="N1")
    assert still.state == registry_pb2.MAPPING_STATE_PENDING, "all or none"


async def test_a_withdrawal_counts_from_its_day_on(
    registry: RegistryService, database: Database
) -> None:
    """The approved end on the day before, what waits never counts, and none comes back."""
    [first] = await submitted(registry, mapping("N1"))
    [second] = await submitted(registry, mapping("N1", STENT, "2026-06-01"))
    await registry.ReviewMappings(reviewing(first, second), OPERATOR)
    [waiting] = await submitted(registry, mapping("N1", ASPIRIN, "2026-09-01"))
    request = withdrawing("N1", day="2026-08-01")
    answer = await registry.WithdrawMappings(request, GATEWAY)
    assert await registry.WithdrawMappings(request, GATEWAY) == answer
    shown = {one.mapping_id: one for one in answer.mappings}
    assert set(shown) == {first, second, waiting}
    assert {one.state for one in answer.mappings} == {registry_pb2.MAPPING_STATE_WITHDRAWN}
    assert shown[second].mapping.end_date == "2026-07-31"
    assert shown[waiting].mapping.end_date == ""
    assert shown[second].reason == "自 2026-08-01 起撤销"
    now = await spells(database, "N1")
    found = [mapped_code(now, date(2026, month, 15)) for month in (5, 7, 8, 10)]
    assert found == [ASPIRIN, STENT, WITHDRAWN, WITHDRAWN]
    fault = await refused(
        registry.WithdrawMappings(withdrawing("Y013", "N1", day="2026-08-02"), GATEWAY)
    )
    assert fault.name == "MAPPING_CHANGE_REFUSED"
    assert "机构项目 N1 自 2026-08-02 起没有可撤销的对照" in fault.message
    assert mapped_code(await spells(database, "Y013"), date(2026, 9, 1)) == ASPIRIN, "all or none"
    await registry.WithdrawMappings(withdrawing("N1", day="2026-07-01"), GATEWAY)
    assert mapped_code(await spells(database, "N1"), date(2026, 7, 15)) is WITHDRAWN


@pytest.mark.parametrize(
    ("mappings", "cause"),
    [
        ([mapping("N1"), mapping("N2", "NO-SUCH-CODE")], "NO-SUCH-CODE 不在 440800 的目录内"),
        ([mapping("N1", end="2025-12-31")], "结束日期 2025-12-31 早于开始日期"),
        ([mapping("N1", end="2026-06-01"), mapping("N1", STENT, "2026-06-01")], "两条重叠的对照"),
        (
            [
                registry_pb2.ItemMapping(
                    item_code="N1",
                    national_code=STENT,
                    list_type=types_pb2.LIST_TYPE_DRUG,
                    start_date="2026-01-01",
                )
            ],
            "目录类别与国家医保编码",
        ),
    ],
)
async def test_a_submission_is_taken_whole_or_not_at_all(
    registry: RegistryService, mappings: list[registry_pb2.ItemMapping], cause: str
) -> None:
    fault = await refused(registry.SubmitMappings(submitting(*mappings), GATEWAY))
    assert fault.name == "MAPPING_CHANGE_REFUSED"
    assert cause in fault.message
    assert await listed(registry, item_code="N1") == []


async def test_only_what_is_registered_and_can_be_stored_is_taken(
    registry: RegistryService,
) -> None:
    for request, name in (
        (submitting(mapping("N1"), institution="H44080077777"), "INSTITUTION_UNKNOWN"),
        (submitting(mapping("N1", start="2026-02-30")), "DAY_INVALID"),
        (submitting(mapping("N\0")), "MESSAGE_INVALID"),
    ):
        assert (await refused(registry.SubmitMappings(request, GATEWAY))).name == name
    unknown = withdrawing("N1", day="2026-01-01", institution="H44080077777")
    assert (await refused(registry.WithdrawMappings(unknown, GATEWAY))).name == (
        "INSTITUTION_UNKNOWN"
    )
    wrong = registry_pb2.ListMappingsRequest(page_token="x")
    assert (await refused(registry.ListMappings(wrong, GATEWAY))).name == "MESSAGE_INVALID"


async def test_request_ids_are_each_institutions_own(registry: RegistryService) -> None:
    """One institution cannot learn, block or repeat what another one did."""
    name = new_id()
    for institution in (HOSPITAL, OTHER_HOSPITAL):
        request = submitting(mapping("N1"), institution=institution, request_id=name)
        [record] = (await registry.SubmitMappings(request, GATEWAY)).mappings
        assert record.institution == institution
    other = submitting(mapping("N2"), request_id=name)
    assert (await refused(registry.SubmitMappings(other, GATEWAY))).name == "REQUEST_ID_REUSED"
    await registry.WithdrawMappings(
        registry_pb2.WithdrawMappingsRequest(
            request_id=name, institution=HOSPITAL, item_codes=["N1"], day="2026-01-01"
        ),
        GATEWAY,
    )


async def test_one_request_sent_four_times_at_once_is_one(registry: RegistryService) -> None:
    request = submitting(mapping("N1"))
    answers = await asyncio.gather(*(registry.SubmitMappings(request, GATEWAY) for _ in range(4)))
    assert all(one == answers[0] for one in answers)
    [number] = [one.mapping_id for one in await listed(registry, item_code="N1")]
    reviews = (reviewing(number), reviewing(number, approve=False, reason="不符"))
    done = await asyncio.gather(
        *(registry.ReviewMappings(each, OPERATOR) for each in reviews), return_exceptions=True
    )
    assert sorted(isinstance(each, Refusal) for each in done) == [False, True]


async def test_mappings_are_listed_by_institution_state_and_page(
    registry: RegistryService,
) -> None:
    ids = await submitted(registry, *(mapping(f"N{number}") for number in range(5)))
    await registry.ReviewMappings(reviewing(*ids[:2]), OPERATOR)
    state = registry_pb2.MAPPING_STATE_PENDING
    found = await listed(registry, institution=HOSPITAL, state=state, page_size=1)
    assert [one.mapping_id for one in found] == ids[2:]
    assert len(await listed(registry, page_size=100)) == 5 + await loaded(registry)


async def loaded(registry: RegistryService) -> int:
    return sum(one.mapping.start_date == "" for one in await listed(registry, page_size=1000))


async def test_states_are_never_changed_and_say_who(
    registry: RegistryService, database: Database, admin: asyncpg.Connection
) -> None:
    [number] = await submitted(registry, mapping("N1"))
    await registry.ReviewMappings(reviewing(number), OPERATOR)
    rows = await admin.fetch(
        "SELECT state, actor, operator FROM catalog.mapping_state"
        " WHERE mapping_id = $1 ORDER BY id",
        number,
    )
    assert [tuple(row) for row in rows] == [
        (PENDING, f"spiffe://yidi/site/{SITE}/institution/{HOSPITAL}", "李四"),
        (APPROVED, f"spiffe://yidi/site/{SITE}/operator/admin", ""),
    ]
    audit = await admin.fetch("SELECT * FROM catalog.audit ORDER BY id DESC LIMIT 2")
    assert [(row["action"], row["subject"]) for row in audit] == [
        ("mapping_approved", HOSPITAL),
        ("submit_mappings", HOSPITAL),
    ]
    for statement in (
        "UPDATE catalog.mapping_state SET state = 2",
        "DELETE FROM catalog.mapping_state",
        "UPDATE catalog.institution_item SET last_day = NULL",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.run(statement)


async def test_what_was_mapped_before_is_approved_since_ever(
    settings: Settings, database: Database, admin: asyncpg.Connection, clock: ManualClock
) -> None:
    await downgrade(settings, SCHEMA, "catalog_01")
    await admin.execute("""
        INSERT INTO catalog.institution_item (institution, item_code, national_code, recorded_at)
        VALUES ('H1', 'A', 'old', now()), ('H1', 'A', 'new', now()), ('H1', 'B', 'b', now())""")
    await admin.execute("""
        INSERT INTO catalog.institution (code, effective_from, name, area, grade, deductible_level,
            price_limit_level, settlement_level, local, in_province, cross_province, suspended,
            recorded_at)
        SELECT code, DATE '2023-01-01', 'x', '440800', 1, 1, 1, 1, '{}', '{}', '{}', false, now()
        FROM unnest(ARRAY['P44080000001', 'H44080000001']) AS code""")
    await migrate(settings, [SCHEMA], clock)
    snapshot = await read_snapshot(database, None)
    assert {code: mapped_code(each, START) for code, each in snapshot.mapped["H1"].items()} == {
        "A": "new",
        "B": "b",
    }
    assert {code: int(one.kind) for code, [one] in snapshot.institutions.items()} == {
        "P44080000001": 2,
        "H44080000001": 1,
    }
