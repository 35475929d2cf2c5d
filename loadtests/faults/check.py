"""Whether everything that callers were told is still true, and whether the journals agree.

It shares no code with what it checks: plain SQL as superuser on every site's own database, read
row by row, and sums made here. Run it when traffic has stopped.

| finding        | what it means                                                              |
|----------------|----------------------------------------------------------------------------|
| lost           | an answer is no longer true, or two answers contradict each other          |
| double         | a bill with two live settlements, an original undone or a posting posted   |
|                | twice, an id at two sites                                                  |
| disagree       | a settlement, a day's money, an accumulator or an account that differs, a  |
|                | posting that nobody asked for                                              |
| in_doubt_left  | a row that is still PENDING or IN_DOUBT, a cancellation not carried out    |
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from loadtests.faults.postings import content_of
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
SELECT settlement_id::text AS id, state, kind, undoes::text AS undoes, {_OUTCOME},
       coalesce((balances->'account'->>'delta')::bigint, 0) AS account_delta
FROM settlement.decision
"""
_NATION = f"SELECT settlement_id::text AS id, kind, {_OUTCOME} FROM relay.outcome"
_OPEN = """
SELECT settlement_id::text AS id, state, kind FROM settlement.care_journal
WHERE state IN ('PENDING', 'IN_DOUBT') AND opened_at < $1
"""
_CANCELLED = """
SELECT j.settlement_id::text AS id FROM settlement.care_journal AS j
WHERE j.state = 'COMPLETED' AND j.cancel_requested AND NOT EXISTS (
    SELECT FROM settlement.care_journal AS u
    WHERE u.undoes = j.settlement_id AND u.state = 'COMPLETED')
"""
_POSTINGS = """
SELECT posting_id::text AS id, insured_area AS area, insurance, person_id::text AS person_id,
       source, balances::text AS balances
FROM settlement.external
"""
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
_OPEN_STATES = ("PENDING", "IN_DOUBT")
Row = Mapping[str, Any]
Databases = Mapping[str, Mapping[str, Any]]
"""Site → how asyncpg connects to its database as superuser."""


@dataclass(slots=True)
class Findings:
    """What is wrong, each in a sentence; `settlements` counts those that stand."""

    settlements: int = 0
    paid_by_account: int = 0
    """Those in which an account paid or got back."""
    postings: int = 0
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
    cancelled: list[str] = field(default_factory=list)
    """Settlements that stand, were cancelled, and have not been undone."""
    postings: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Posting → its source, and everything it means."""


async def find_open(databases: Databases, *, before: datetime) -> list[str]:
    """The rows of all care places opened `before` whose outcome is not known, in sentences."""
    return [_open_row(row) for rows in await _of_all(databases, _OPEN, before) for row in rows]


async def find_cancelled(databases: Databases) -> list[str]:
    """Cancelled settlements that stand and have not been undone, in sentences."""
    return [
        _cancelled_row(row["id"]) for rows in await _of_all(databases, _CANCELLED) for row in rows
    ]


async def _of_all(databases: Databases, statement: str, *arguments: Any) -> list[list[Row]]:
    """What every care place's database answers."""
    found: list[list[Row]] = []
    for site, at in databases.items():
        if site != NATION:
            connection = await asyncpg.connect(**at)
            try:
                found.append(await connection.fetch(statement, *arguments))
            finally:
                await connection.close()
    return found


def _open_row(row: Row) -> str:
    return f"settlement {row['id']} is {row['state']} (kind {row['kind']})"


def _cancelled_row(key: str) -> str:
    return f"settlement {key} was cancelled, stands, and is not undone"


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
    books.cancelled += [row["id"] for row in await connection.fetch(_CANCELLED)]
    for row in await connection.fetch(_POSTINGS):
        if row["id"] in books.postings:
            books.twice.append(f"posting {row['id']} is at two sites, one of them {site}")
        books.postings[row["id"]] = (row["source"], _content(row))
    deltas = f"{_DECIDED} UNION ALL {_POSTED}"
    for row in await connection.fetch(_ACCUMULATORS.format(deltas=deltas)):
        books.balances.append(f"accumulator at {site} {dict(row)}")
    tables = ("decision", "external")
    deltas = " UNION ALL ".join(_ACCOUNT_DELTA.format(table=table) for table in tables)
    for row in await connection.fetch(_ACCOUNTS.format(deltas=deltas)):
        books.balances.append(f"account at {site} {dict(row)}")


def _content(row: Row) -> str:
    balances = json.loads(row["balances"])
    account = balances["account"]
    return content_of(
        row["area"],
        row["insurance"],
        row["person_id"],
        row["source"],
        {one["period"]: one["delta"] for one in balances["accumulators"]},
        (account["account_id"], account["delta"]) if account else None,
    )


def judge(books: Books, promises: Promises) -> Findings:
    """The findings of books that were read."""
    findings = Findings(
        settlements=sum(row["state"] == "COMMITTED" for row in books.decisions.values()),
        paid_by_account=sum(row["account_delta"] != 0 for row in books.decisions.values()),
        postings=len(books.postings),
        lost=[*promises.broken, *_lost(books, promises)],
        double=[*books.twice, *_double(books)],
        in_doubt_left=[
            *(_open_row(row) for row in books.care.values() if row["state"] in _OPEN_STATES),
            *(_cancelled_row(key) for key in books.cancelled),
        ],
    )
    findings.disagree = [
        *books.balances,
        *_disagree(books),
        *_days(books),
        *_undos(books),
        *_accounts(books),
        *_unasked(books, promises),
    ]
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
    for key, content in promises.postings.items():
        _, stored = books.postings.get(key, ("", None))
        if stored != content:
            yield f"posting {key} was answered as posted with {content} and is {stored}"


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
    sources = Counter(source for source, _ in books.postings.values())
    for source, times in sources.items():
        if times > 1:
            yield f"the posting of {source} was posted {times} times"


def _accounts(books: Books) -> Iterator[str]:
    """What an outcome says that the account pays is what it was charged."""
    for key, row in books.decisions.items():
        if row["account_delta"] != -(row["account_fen"] or 0):
            yield f"{key} says account {row['account_fen']}, charged {row['account_delta']}"


def _unasked(books: Books, promises: Promises) -> Iterator[str]:
    for key, (_, content) in books.postings.items():
        if content not in promises.asked_postings.get(key, ()):
            yield f"posting {key} holds {content}, which nobody asked for"


def _disagree(books: Books) -> Iterator[str]:
    """Settlements that one journal holds otherwise than another; open ones are not told here."""
    for key in sorted({*books.care, *books.decisions, *books.nation}):
        care, decision = books.care.get(key), books.decisions.get(key)
        if care is not None and care["state"] in _OPEN_STATES:
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
    open_rows = {key for key, row in books.care.items() if row["state"] in _OPEN_STATES}
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
