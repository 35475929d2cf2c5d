"""Whether everything that callers were told is still true, and whether the journals agree.

It shares no code with what it checks: plain SQL as superuser on every site's own database, read
row by row, and sums made here. Run it when traffic has stopped.

| finding        | what it means                                                              |
|----------------|----------------------------------------------------------------------------|
| lost           | an answer is no longer true, or two answers contradict each other          |
| double         | a bill with two live settlements, an original undone twice, an id twice    |
| disagree       | a settlement, a day's money, an accumulator or an account that differs     |
| in_doubt_left  | a row that is still PENDING or IN_DOUBT                                    |
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from loadtests.faults.promises import NOTHING_PAID, STANDS, Promises

NATION = "100000"
_MONEY = """total_fen, full_self_pay_fen, over_limit_fen, first_self_pay_fen, in_scope_fen,
    remote_first_pay_fen, deductible_fen, ratio_self_pay_fen, over_cap_fen, fund_total_fen,
    account_fen, cash_fen, hospital_fen"""
_NAMES = [name.strip() for name in _MONEY.split(",")]
_OUTCOME = f"""encode(outcome_digest, 'hex') AS digest,
    outcome_digest IS NOT DISTINCT FROM sha256(outcome_header) AS sound,
    business_day::text AS day, care_site, insured_site, {_MONEY}"""
_CARE = f"""
SELECT settlement_id::text AS id, state, kind, undoes::text AS undoes, institution, visit_id,
       bill_id, {_OUTCOME}
FROM settlement.care_journal
"""
_DECISION = f"""
SELECT settlement_id::text AS id, state, kind, undoes::text AS undoes, {_OUTCOME}
FROM settlement.decision
"""
_NATION = f"SELECT settlement_id::text AS id, kind, {_OUTCOME} FROM relay.outcome"
_OPEN = "SELECT count(*) FROM settlement.care_journal WHERE state IN ('PENDING', 'IN_DOUBT')"
_LIST = """jsonb_array_elements(CASE WHEN jsonb_typeof(balances->'accumulators') = 'array'
    THEN balances->'accumulators' ELSE '[]'::jsonb END)"""
_DECIDED = f"""
SELECT insured_area, insurance, person_id, k->>'period' AS period, k->'delta' AS delta
FROM settlement.decision, {_LIST} AS k WHERE state = 'COMMITTED'
"""
_POSTED = f"""
SELECT insured_area, insurance, person_id, k->>'period', k->'delta'
FROM settlement.external, {_LIST} AS k
"""
_ACCUMULATORS = """
WITH delta AS ({deltas}), summed AS (
    SELECT insured_area, insurance, person_id, period, e.key AS name, sum(e.value::bigint) AS total
    FROM delta, jsonb_each_text(delta) AS e GROUP BY 1, 2, 3, 4, 5
), stored AS (
    SELECT insured_area, insurance, person_id, period, e.key AS name, e.value::bigint AS total
    FROM settlement.accumulator AS a, jsonb_each_text(to_jsonb(a) - ARRAY['insured_area',
        'insurance', 'person_id', 'period', 'version']) AS e
)
SELECT insured_area, person_id::text, period, name, summed.total AS deltas, stored.total AS stored
FROM summed FULL JOIN stored USING (insured_area, insurance, person_id, period, name)
WHERE coalesce(summed.total, 0) <> coalesce(stored.total, 0)
"""
_ACCOUNT_DELTA = """
SELECT (balances->'account'->>'account_id')::uuid AS account_id,
       (balances->'account'->>'delta')::bigint AS delta
FROM settlement.{table} WHERE jsonb_typeof(balances->'account') = 'object'
"""
_ACCOUNTS = """
WITH delta AS ({deltas}), summed AS (
    SELECT account_id, sum(delta) AS total FROM delta GROUP BY account_id
)
SELECT account_id::text, summed.total AS deltas, a.balance_fen AS stored
FROM summed FULL JOIN settlement.account AS a USING (account_id)
WHERE coalesce(summed.total, 0) <> coalesce(a.balance_fen, 0)
"""
_SETTLE, _UNDOS = 2, (3, 4)
Row = Mapping[str, Any]
Databases = Mapping[str, Mapping[str, Any]]
"""Site → how asyncpg connects to its database as superuser."""


@dataclass(slots=True)
class Findings:
    """What is wrong, each in a sentence; `settlements` counts those that stand."""

    settlements: int = 0
    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    disagree: list[str] = field(default_factory=list)
    in_doubt_left: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        """Every finding with its kind before it."""
        kinds = ("lost", "double", "disagree", "in_doubt_left")
        return [f"{kind}: {text}" for kind in kinds for text in getattr(self, kind)]


@dataclass(slots=True)
class Books:
    """All rows of all sites."""

    care: dict[str, Row] = field(default_factory=dict)
    decisions: dict[str, Row] = field(default_factory=dict)
    nation: dict[str, Row] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    """Ids that two sites hold in the same kind of journal."""
    balances: list[str] = field(default_factory=list)
    """Accumulators and accounts that are not the sum of their deltas."""


async def count_open(databases: Databases) -> int:
    """Rows of all care places whose outcome is not known."""
    found = 0
    for site, at in databases.items():
        if site != NATION:
            connection = await asyncpg.connect(**at)
            try:
                found += await connection.fetchval(_OPEN)
            finally:
                await connection.close()
    return found


async def check(databases: Databases, promises: Promises) -> Findings:
    """Read everything and hold it against itself and against what was promised."""
    books = Books()
    for site, at in databases.items():
        connection = await asyncpg.connect(**at)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await _read(connection, site, books)
        finally:
            await connection.close()
    return judge(books, promises)


async def _read(connection: Any, site: str, books: Books) -> None:
    if site == NATION:
        books.nation = {row["id"]: row for row in await connection.fetch(_NATION)}
        return
    for statement, journal in ((_CARE, books.care), (_DECISION, books.decisions)):
        for row in await connection.fetch(statement):
            if row["id"] in journal:
                books.twice.append(f"settlement {row['id']} is at two sites, one of them {site}")
            journal[row["id"]] = row
    posted = await connection.fetchval("SELECT to_regclass('settlement.external') IS NOT NULL")
    deltas = f"{_DECIDED} UNION ALL {_POSTED}" if posted else _DECIDED
    for row in await connection.fetch(_ACCUMULATORS.format(deltas=deltas)):
        books.balances.append(f"accumulator at {site} {dict(row)}")
    tables = ["decision", *(["external"] if posted else [])]
    deltas = " UNION ALL ".join(_ACCOUNT_DELTA.format(table=table) for table in tables)
    for row in await connection.fetch(_ACCOUNTS.format(deltas=deltas)):
        books.balances.append(f"account at {site} {dict(row)}")


def judge(books: Books, promises: Promises) -> Findings:
    """The findings of books that were read."""
    findings = Findings(
        settlements=sum(row["state"] == "COMMITTED" for row in books.decisions.values()),
        lost=[*promises.broken, *_lost(books, promises)],
        double=[*books.twice, *_double(books)],
        in_doubt_left=[
            f"settlement {key} is {row['state']} (kind {row['kind']})"
            for key, row in books.care.items()
            if row["state"] in ("PENDING", "IN_DOUBT")
        ],
    )
    findings.disagree = [*books.balances, *_disagree(books), *_days(books), *_undos(books)]
    return findings


def _lost(books: Books, promises: Promises) -> Iterator[str]:
    for key, outcome in promises.outcomes.items():
        care, decision = books.care.get(key), books.decisions.get(key)
        state = care["state"] if care else None
        decided = decision["state"] if decision else None
        if outcome == STANDS and (state, decided) != ("COMPLETED", "COMMITTED"):
            yield f"{key} was answered COMPLETED and is {state} at care, {decided} at insured"
        if outcome == NOTHING_PAID and (
            state not in ("REJECTED", "ABORTED") or decided == "COMMITTED"
        ):
            yield f"{key} was answered unpaid for ever, is {state} at care, {decided} at insured"
    for key, digest in promises.digests.items():
        row = books.care.get(key)
        if row is None or row["digest"] != digest:
            yield f"{key} was answered with the outcome {digest} and holds another one"
    for key, original in promises.undone.items():
        row = books.decisions.get(key)
        if row is None or row["undoes"] != original:
            yield f"{key} was answered as the undo of {original} and is not"


def _double(books: Books) -> Iterator[str]:
    standing = {key: row for key, row in books.decisions.items() if row["state"] == "COMMITTED"}
    undone = Counter(row["undoes"] for row in standing.values() if row["kind"] in _UNDOS)
    for original, times in undone.items():
        if times > 1:
            yield f"{original} was undone {times} times"
    live: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for key, row in standing.items():
        care = books.care.get(key)
        if row["kind"] == _SETTLE and key not in undone and care is not None:
            live[care["institution"], care["visit_id"], care["bill_id"]].append(key)
    for bill, keys in live.items():
        if len(keys) > 1:
            yield f"bill {bill} has the live settlements {keys}"


def _disagree(books: Books) -> Iterator[str]:
    """Settlements that one journal holds otherwise than another; open ones are not told here."""
    for key in sorted({*books.care, *books.decisions, *books.nation}):
        care, decision = books.care.get(key), books.decisions.get(key)
        if care is not None and care["state"] in ("PENDING", "IN_DOUBT"):
            continue
        journaled = books.nation.get(key)
        completed = care is not None and care["state"] == "COMPLETED"
        committed = decision is not None and decision["state"] == "COMMITTED"
        if completed != committed:
            yield (
                f"{key} is {care['state'] if care else None} at care and"
                f" {decision['state'] if decision else None} at insured"
            )
            continue
        crosses = committed and decision["care_site"] != decision["insured_site"]  # type: ignore[index]
        if crosses != (journaled is not None):
            yield f"{key} is {'not ' if crosses else ''}at the nation"
        rows = [row for row in (care, decision, journaled) if row is not None] if committed else []
        if len({tuple(row[name] for name in ("digest", "day", *_NAMES)) for row in rows}) > 1:
            yield f"{key} holds different outcomes"
        if not all(row["sound"] for row in rows):
            yield f"{key} holds an outcome whose digest is not that of its bytes"


def _days(books: Books) -> Iterator[str]:
    """Money per day and pair of sites; what is open at care is left out of the others."""
    open_rows = {key for key, row in books.care.items() if row["state"] in ("PENDING", "IN_DOUBT")}
    sums: dict[tuple[str, str, str], dict[str, Counter[str]]] = defaultdict(dict)
    journals = {"care": books.care, "insured": books.decisions, "nation": books.nation}
    for journal, rows in journals.items():
        for key, row in rows.items():
            if row["digest"] is not None and key not in open_rows:
                pair = (row["day"], row["care_site"], row["insured_site"])
                total = sums[pair].setdefault(journal, Counter())
                total.update({"count": 1, **{name: row[name] for name in _NAMES}})
    for (day, care, insured), totals in sorted(sums.items()):
        names = ("care", "insured", "nation") if care != insured else ("care", "insured")
        views = [dict(totals.get(name, Counter())) for name in names]
        if any(view != views[0] for view in views):
            money = {name: totals.get(name, Counter())["total_fen"] for name in names}
            yield f"{day} {care} → {insured}: total {money}"


def _undos(books: Books) -> Iterator[str]:
    for key, row in books.decisions.items():
        if row["kind"] in _UNDOS and row["state"] == "COMMITTED":
            original = books.decisions.get(row["undoes"])
            if original is None or original["state"] != "COMMITTED":
                yield f"{key} undoes {row['undoes']}, which does not stand"
            elif any(row[name] != -original[name] for name in _NAMES):
                yield f"{key} is not the negation of {row['undoes']}"
