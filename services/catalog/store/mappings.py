"""目录对照: items of institutions mapped to national codes.

What is mapped and each state that it came to are rows of their own, never changed; the newest state
of a mapping is where it stands. Whoever writes holds the lock of `publications.publishing`, so
states become visible in order of their ids.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.catalog.domain.item import ListType
from services.catalog.domain.mapping import MappingSpell, MappingState, RecordedMapping, timeline
from services.catalog.domain.reviewing import Standing, Submitted
from services.catalog.store.batches import ROWS, columns, rows_of

Spells = Mapping[str, Mapping[str, tuple[MappingSpell, ...]]]
"""Institution → its item code → what its mappings come to."""
NEWEST_MAPPING = "SELECT coalesce(max(id), 0) FROM catalog.mapping_state"

_LOADED_TYPES = {"institution": "text", "item_code": "text", "national_code": "text"}
_STATE = """
    LATERAL (
        SELECT state.state, state.withdrawn_from, state.reason, state.at
        FROM catalog.mapping_state AS state
        WHERE state.mapping_id = mapping.id ORDER BY state.id DESC LIMIT 1
    ) AS standing"""

# What was loaded before is left alone, whatever the institution has submitted since.
_LOAD = text(f"""
    WITH added AS (
        INSERT INTO catalog.institution_item (institution, item_code, national_code, recorded_at)
        SELECT t.institution, t.item_code, t.national_code, :at
        FROM {rows_of(_LOADED_TYPES)}
        LEFT JOIN LATERAL (
            SELECT national_code FROM catalog.institution_item AS former
            WHERE former.institution = t.institution AND former.item_code = t.item_code
              AND former.first_day IS NULL
            ORDER BY former.id DESC LIMIT 1
        ) AS former ON true
        WHERE former.national_code IS DISTINCT FROM t.national_code
        RETURNING id, institution, item_code, national_code
    ), approved AS (
        INSERT INTO catalog.mapping_state (mapping_id, state, actor, at)
        SELECT id, {MappingState.APPROVED:d}, :actor, :at FROM added ORDER BY id
    ), audited AS (
        INSERT INTO catalog.audit (at, actor, action, subject, digest)
        SELECT :at, :actor, 'map_items', institution, sha256(convert_to(string_agg(
                   item_code || '=' || national_code, ';' ORDER BY item_code), 'UTF8'))
        FROM added GROUP BY institution
    )
    SELECT count(*) FROM added""")

_SUBMITTED_TYPES = {
    "ordinal": "integer",
    "item_code": "text",
    "item_name": "text",
    "list_type": "smallint",
    "national_code": "text",
    "first_day": "date",
    "last_day": "date",
}
_SUBMIT = text(f"""
    WITH added AS (
        INSERT INTO catalog.institution_item
            (institution, item_code, item_name, list_type, national_code, first_day, last_day,
             recorded_at)
        SELECT :institution, t.item_code, t.item_name, t.list_type, t.national_code, t.first_day,
               t.last_day, :at
        FROM {rows_of(_SUBMITTED_TYPES)} ORDER BY t.ordinal
        RETURNING id, item_code, national_code
    ), pending AS (
        INSERT INTO catalog.mapping_state (mapping_id, state, actor, operator, at)
        SELECT id, {MappingState.PENDING:d}, :actor, :operator, :at FROM added ORDER BY id
    ), audited AS (
        INSERT INTO catalog.audit (at, actor, action, subject, digest)
        SELECT :at, :actor, 'submit_mappings', :institution, sha256(convert_to(string_agg(
                   id || ' ' || item_code || '=' || national_code, ';' ORDER BY id), 'UTF8'))
        FROM added
    )
    SELECT id FROM added ORDER BY id""")

_MOVED_TYPES = {"mapping_id": "bigint", "withdrawn_from": "date"}
_MOVE = text(f"""
    WITH moved AS (
        INSERT INTO catalog.mapping_state
            (mapping_id, state, withdrawn_from, reason, actor, operator, at)
        SELECT t.mapping_id, :state, t.withdrawn_from, :reason, :actor, :operator, :at
        FROM {rows_of(_MOVED_TYPES)} ORDER BY t.mapping_id
        RETURNING mapping_id, withdrawn_from
    )
    INSERT INTO catalog.audit (at, actor, action, subject, digest)
    SELECT :at, :actor, :action, mapping.institution, sha256(convert_to(string_agg(
               mapping.id || ' ' || coalesce(moved.withdrawn_from, '-infinity'),
               ';' ORDER BY mapping.id), 'UTF8'))
    FROM moved JOIN catalog.institution_item AS mapping ON mapping.id = moved.mapping_id
    GROUP BY mapping.institution""")

_SHOWN = f"""
    SELECT mapping.id, mapping.institution, mapping.item_code, mapping.item_name,
           mapping.list_type, mapping.national_code, mapping.first_day, mapping.last_day, standing.*
    FROM catalog.institution_item AS mapping, {_STATE}"""
_NUMBERED = text(f"{_SHOWN} WHERE mapping.id = ANY(CAST(:ids AS bigint[])) ORDER BY mapping.id")
_OF_ITEMS = text(f"""{_SHOWN}
    WHERE mapping.institution = :institution
      AND mapping.item_code = ANY(CAST(:item_codes AS text[])) ORDER BY mapping.id""")
_LISTED = text(f"""{_SHOWN}
    WHERE mapping.id > :after
      AND (:institution = '' OR mapping.institution = :institution)
      AND (:item_code = '' OR mapping.item_code = :item_code)
      AND (:state = 0 OR standing.state = :state)
    ORDER BY mapping.id LIMIT :size""")

_READ = f"""
    SELECT mapping.institution, mapping.item_code, mapping.id, mapping.national_code,
           mapping.first_day, mapping.last_day, standing.state, standing.withdrawn_from
    FROM catalog.institution_item AS mapping, {_STATE}
    {{those}} ORDER BY mapping.institution, mapping.item_code, mapping.id"""
_READ_ALL = text(_READ.format(those=""))
_READ_CHANGED = text(
    _READ.format(
        those="""
    WHERE (mapping.institution, mapping.item_code) IN (
        SELECT changed.institution, changed.item_code
        FROM catalog.mapping_state AS state
        JOIN catalog.institution_item AS changed ON changed.id = state.mapping_id
        WHERE state.id > :after)"""
    )
)

# Every list that the area has published counts: a mapping may begin before or outlast one. Where
# it has none, the province's.
_NAMED = text("""
    SELECT DISTINCT ON (item.national_code) item.national_code, item.list_type
    FROM unnest(CAST(:codes AS text[])) AS asked(code)
    JOIN catalog.version ON version.publication IS NOT NULL AND version.area = (
        SELECT published.area FROM catalog.version AS published
        WHERE published.publication IS NOT NULL AND published.area IN (:area, :province)
        ORDER BY published.area = :area DESC LIMIT 1)
    JOIN catalog.item ON item.version_id = version.id AND item.national_code = asked.code
    ORDER BY item.national_code, version.publication DESC""")


async def read_mappings(
    connection: AsyncConnection, known: Spells | None = None, after: int = 0
) -> Spells:
    """What every institution has mapped: that of `known`, which was all up to the state `after`,
    and what has come to another state since.

    Institutions name their items alike and map them to the same codes: equal texts and spells are
    one object.
    """
    found: dict[str, dict[str, tuple[MappingSpell, ...]]] = {}
    shared = _Shared()
    async for institution, item_code, mappings in _items(connection, after, shared):
        found.setdefault(institution, {})[item_code] = shared.spells(mappings)
    return {
        **(known or {}),
        **{
            institution: {**(known or {}).get(institution, {}), **items}
            for institution, items in found.items()
        },
    }


async def read_standing(connection: AsyncConnection, ids: Sequence[int]) -> list[Standing]:
    """The mappings of these numbers in their order; unknown ones are left out."""
    found = {
        one.id: one for one in map(_standing, await connection.execute(_NUMBERED, {"ids": ids}))
    }
    return [found[number] for number in ids if number in found]


async def read_items_standing(
    connection: AsyncConnection, institution: str, item_codes: Iterable[str]
) -> list[Standing]:
    """All mappings of these items of the institution, in order of their numbers."""
    asked = {"institution": institution, "item_codes": sorted(set(item_codes))}
    return list(map(_standing, await connection.execute(_OF_ITEMS, asked)))


async def list_mappings(
    connection: AsyncConnection,
    *,
    institution: str,
    item_code: str,
    state: int,
    after: int,
    size: int,
) -> list[Standing]:
    """At most `size` mappings behind the number `after`; empty texts and 0 ask for nothing."""
    asked = {
        "institution": institution,
        "item_code": item_code,
        "state": state,
        "after": after,
        "size": size,
    }
    return list(map(_standing, await connection.execute(_LISTED, asked)))


async def listed_codes(
    connection: AsyncConnection, codes: Iterable[str], *, area: str, province: str
) -> dict[str, ListType]:
    """Those of `codes` that a list of the area names, each with the list it belongs to."""
    asked = {"codes": sorted(set(codes)), "area": area, "province": province}
    return {
        row.national_code: ListType(row.list_type)
        for row in await connection.execute(_NAMED, asked)
    }


async def add_mappings(
    connection: AsyncConnection,
    mappings: Sequence[tuple[str, str, str]],
    who: Mapping[str, object],
) -> int:
    """Record (institution, its item code, national code) as approved since ever, those that are not
    there yet; say how many. `who` is `actor` and `at`."""
    added: int = (
        await connection.execute(_LOAD, columns(_LOADED_TYPES, mappings) | dict(who))
    ).scalar_one()
    return added


async def submit_mappings(
    connection: AsyncConnection,
    institution: str,
    submitted: Sequence[Submitted],
    who: Mapping[str, object],
) -> list[Standing]:
    """Record what waits for its review. `who` is `actor`, `at` and `operator`."""
    rows = (
        (
            ordinal,
            one.item_code,
            one.item_name,
            one.list_type or 0,
            one.national_code,
            one.first_day,
            None if one.last_day == date.max else one.last_day,
        )
        for ordinal, one in enumerate(submitted)
    )
    asked = columns(_SUBMITTED_TYPES, rows) | {"institution": institution, **who}
    return await read_standing(
        connection, list((await connection.execute(_SUBMIT, asked)).scalars())
    )


async def move_mappings(
    connection: AsyncConnection,
    moved: Mapping[int, date | None],
    state: MappingState,
    who: Mapping[str, object],
    *,
    reason: str = "",
) -> list[Standing]:
    """Record that each mapping has come to `state`: number → first day without a withdrawn one.

    `who` is `actor`, `at` and `operator`. They come back as they stand, in the order of `moved`.
    """
    asked = columns(_MOVED_TYPES, sorted(moved.items()))
    action = f"mapping_{state.name.lower()}"
    await connection.execute(
        _MOVE, asked | {"state": int(state), "action": action, "reason": reason, **who}
    )
    return await read_standing(connection, list(moved))


async def _items(
    connection: AsyncConnection, after: int, shared: _Shared
) -> AsyncIterator[tuple[str, str, list[RecordedMapping]]]:
    """The mappings of each item that has any, in order of their numbers."""
    statement = _READ_CHANGED if after else _READ_ALL
    at: tuple[str, str] | None = None
    gathered: list[RecordedMapping] = []
    async with connection.stream(statement, {"after": after} if after else {}) as rows:
        async for part in rows.partitions(ROWS):
            for institution, item_code, number, code, first_day, last_day, state, since in part:
                if at != (institution, item_code):
                    if at is not None:
                        yield *at, gathered
                    at = shared.text(institution), shared.text(item_code)
                    gathered = []
                gathered.append(
                    RecordedMapping(
                        number,
                        shared.text(code),
                        first_day or date.min,
                        last_day or date.max,
                        MappingState(state),
                        since,
                    )
                )
    if at is not None:
        yield *at, gathered


@dataclass(slots=True)
class _Shared:
    """Makes equal texts and spells one object."""

    _texts: dict[str, str] = field(default_factory=dict)
    _spells: dict[object, tuple[MappingSpell, ...]] = field(default_factory=dict)

    def text(self, text: str) -> str:
        return self._texts.setdefault(text, text)

    def spells(self, mappings: Sequence[RecordedMapping]) -> tuple[MappingSpell, ...]:
        key = tuple(one[1:] for one in mappings)  # of the number only the order counts
        spells = self._spells.get(key)
        if spells is None:
            spells = self._spells[key] = timeline(mappings)
        return spells


def _standing(row: Row[Any]) -> Standing:
    return Standing(
        id=row.id,
        institution=row.institution,
        submitted=Submitted(
            item_code=row.item_code,
            item_name=row.item_name,
            list_type=ListType(row.list_type) if row.list_type else None,
            national_code=row.national_code,
            first_day=row.first_day or date.min,
            last_day=row.last_day or date.max,
        ),
        state=MappingState(row.state),
        withdrawn_from=row.withdrawn_from,
        reason=row.reason,
        at=row.at,
    )
