"""How a committed outcome is spread over columns, and how a day of a journal is digested.

The three journals (care, nation, insured) are independent tables of independent sites. They hold
the same header bytes; the columns are pulled from them by this one definition, so that a day
compares equal exactly when the bytes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import asyncpg

from infra.runtime.clock import first_id_of
from infra.runtime.database import Database
from yidi.common.v1 import amounts_pb2, envelope_pb2

AMOUNTS = tuple(field.name for field in amounts_pb2.Amounts.DESCRIPTOR.fields)
"""The fixed amounts, each a BIGINT column of its name, fen."""
COLUMNS = ("business_day", "care_site", "insured_site", *AMOUNTS, "fund_codes", "fund_fen")
"""Columns of an outcome besides id, header, digest."""
_TYPES = ("date", "text", "text", *("bigint" for _ in AMOUNTS), "text", "text")
COLUMN_LIST = ", ".join(COLUMNS)
HOUR_MS = 3_600_000
LAST_HOUR = (1 << 48) // HOUR_MS
"""A UUIDv7 has 48 bits of milliseconds: later hours have no ids."""
MAX_ENTRIES = 10_000
"""Rows of one hour told at most; their number is in the hour's own count."""
_OF_DAY = "business_day = $1 AND care_site = $2 AND insured_site = $3"
_DIGEST = """sha256(coalesce(string_agg(outcome_digest, ''::bytea ORDER BY settlement_id),
                               ''::bytea))"""


def parameters(first: int) -> str:
    """The array parameters of COLUMNS for `unnest`, numbered from `first`."""
    return ", ".join(f"${first + index}::{kind}[]" for index, kind in enumerate(_TYPES))


def selected(alias: str) -> str:
    """COLUMNS of an `unnest` alias as expressions to insert (funds travel as joined text)."""
    plain = [f"{alias}.{name}" for name in COLUMNS[:-2]]
    return ", ".join(
        [
            *plain,
            f"string_to_array({alias}.fund_codes, ',')",
            f"string_to_array({alias}.fund_fen, ',')::bigint[]",
        ]
    )


def arrays(headers: Sequence[envelope_pb2.OutcomeHeader | None]) -> list[list[Any]]:
    """One array per column of COLUMNS; a row without a header (a refusal) is all NULL."""
    rows = [_row(header) for header in headers]
    return [list(column) for column in zip(*rows, strict=True)]


def _row(header: envelope_pb2.OutcomeHeader | None) -> tuple[Any, ...]:
    if header is None:
        return (None,) * len(COLUMNS)
    amounts = header.amounts
    return (
        date.fromisoformat(header.business_day),
        header.care_site,
        header.insured_site,
        *(getattr(amounts, name) for name in AMOUNTS),
        ",".join(fund.code for fund in header.funds),
        ",".join(str(fund.fen) for fund in header.funds),
    )


def _digest_statement(table: str) -> str:
    """The digest of one day ($1) of one pair of sites ($2 care, $3 insured) of a journal table.

    One statement, so that count, sums and digest see the same rows.
    """
    sums = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in AMOUNTS)
    return f"""
        WITH day AS MATERIALIZED (
            SELECT * FROM {table} WHERE {_OF_DAY}
        ), fund AS (
            SELECT f.code, sum(f.fen)::bigint AS fen
            FROM day, unnest(fund_codes, fund_fen) AS f(code, fen) GROUP BY f.code
        )
        SELECT count(*) AS count, {sums}, {_DIGEST} AS digest,
               coalesce((SELECT array_agg(code ORDER BY code COLLATE "C") FROM fund), '{{}}')
                   AS fund_codes,
               coalesce((SELECT array_agg(fen ORDER BY code COLLATE "C") FROM fund), '{{}}')
                   AS fund_fen
        FROM day
    """


def _hours_statement(table: str) -> str:
    """Count and digest of each hour of that day, by the milliseconds inside the settlement ids."""
    return f"""
        SELECT hour, count(*) AS count, {_DIGEST} AS digest
        FROM (
            SELECT settlement_id, outcome_digest,
                   ('x' || left(replace(settlement_id::text, '-', ''), 12))::bit(48)::bigint
                       / {HOUR_MS} AS hour
            FROM {table} WHERE {_OF_DAY}
        ) AS entry
        GROUP BY hour ORDER BY hour
    """


def _entries_statement(table: str) -> str:
    """Id and digest of the day's rows whose ids lie in [$4, $5)."""
    return f"""
        SELECT settlement_id::text AS settlement_id, outcome_digest
        FROM {table}
        WHERE {_OF_DAY} AND settlement_id >= $4 AND settlement_id < $5
        ORDER BY {table}.settlement_id LIMIT {MAX_ENTRIES}
    """


async def digest(
    database: Database,
    table: str,
    day: date,
    care_site: str,
    insured_site: str,
    detail: envelope_pb2.JournalDetail.ValueType,
    hour: int,
) -> envelope_pb2.JournalDigest:
    """One day of one pair of sites, as deep as asked: the day, its hours, the rows of `hour`."""
    of_day = (day, care_site, insured_site)
    message = _digest_message((await database.run(_digest_statement(table), *of_day))[0])
    if detail == envelope_pb2.JOURNAL_DETAIL_HOURS:
        for row in await database.run(_hours_statement(table), *of_day):
            message.hours.add(hour=row["hour"], count=row["count"], digest=row["digest"])
    elif detail == envelope_pb2.JOURNAL_DETAIL_ENTRIES and hour < LAST_HOUR:
        bounds = (first_id_of(hour * HOUR_MS), first_id_of((hour + 1) * HOUR_MS))
        for row in await database.run(_entries_statement(table), *of_day, *bounds):
            message.entries.add(settlement_id=row["settlement_id"], digest=row["outcome_digest"])
    return message


def _digest_message(row: asyncpg.Record) -> envelope_pb2.JournalDigest:
    """The row of `_digest_statement` as the answer to a digest call."""
    return envelope_pb2.JournalDigest(
        count=row["count"],
        sums=amounts_pb2.Amounts(**{name: row[name] for name in AMOUNTS}),
        funds=[
            amounts_pb2.FundPayment(code=code, fen=fen)
            for code, fen in zip(row["fund_codes"], row["fund_fen"], strict=True)
        ],
        digest=row["digest"],
    )
