"""The policy service's tables and every statement on them.

| statement | when | trips |
|---|---|---|
| `last_number` | every 5 s per replica | 1 |
| `publications_after` | start, and when the last number has changed | 1 |
| `versions`, `publish` | loading documents | 1 each |

Computing asks the database for nothing. `policy.document` is immutable: the app role has neither
UPDATE nor DELETE. Publication numbers are the greatest so far plus one and unique, so two
publishers cannot commit out of order and a reader that asks for numbers above the last one it
saw misses none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import asyncpg

from infra.runtime.database import Database
from infra.runtime.schema import Schema

SCHEMA = Schema("policy", Path(__file__).parent / "migrations")


class StoredDocument(NamedTuple):
    """A row of `policy.document` as it is published."""

    number: int
    activated_at: datetime
    content: str
    hash: bytes


class NewDocument(NamedTuple):
    """A document to publish."""

    area: str
    insurance: str
    version: str
    effective_from: date
    effective_to: date
    content: str
    hash: bytes


class PublishedMeanwhile(Exception):
    """Someone else published at the same time: read the list again."""


_LAST_NUMBER = "SELECT coalesce(max(publication), 0) AS number FROM policy.document"

_PUBLICATIONS_AFTER = """
SELECT publication, activated_at, content, hash FROM policy.document
WHERE publication > $1 ORDER BY publication
"""

_VERSIONS = "SELECT area, insurance, version, hash FROM policy.document"

_PUBLISH = """
WITH added AS (
    INSERT INTO policy.document (publication, area, insurance, version, effective_from,
                                 effective_to, content, hash, published_at, activated_at)
    SELECT (SELECT coalesce(max(publication), 0) FROM policy.document) + place,
           area, insurance, version, effective_from, effective_to, content, hash, $8, $9
    FROM unnest($1::text[], $2::text[], $3::text[], $4::date[], $5::date[], $6::text[],
                $7::bytea[]) WITH ORDINALITY
         AS new (area, insurance, version, effective_from, effective_to, content, hash, place)
    RETURNING area, insurance, version, hash
)
INSERT INTO policy.audit (at, actor, action, subject, digest)
SELECT $8, $10, 'publish', area || '/' || insurance || '/' || version, hash FROM added
"""


class Store:
    """Every query of the policy service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last_number(self) -> int:
        """The greatest publication number; 0 when nothing is published."""
        rows = await self._database.run(_LAST_NUMBER)
        number: int = rows[0]["number"]
        return number

    async def publications_after(self, number: int) -> list[StoredDocument]:
        """The documents published after `number`, in order."""
        rows = await self._database.run(_PUBLICATIONS_AFTER, number)
        return [
            StoredDocument(row["publication"], row["activated_at"], row["content"], row["hash"])
            for row in rows
        ]

    async def versions(self) -> dict[tuple[str, str, str], bytes]:
        """The content hash of every published (area, insurance, version)."""
        rows = await self._database.run(_VERSIONS)
        return {(row["area"], row["insurance"], row["version"]): row["hash"] for row in rows}

    async def publish(
        self,
        documents: Sequence[NewDocument],
        *,
        published_at: datetime,
        activated_at: datetime,
        actor: str,
    ) -> None:
        """Publish all of `documents` or none; raise `PublishedMeanwhile`."""
        columns = [list(column) for column in zip(*documents, strict=True)]
        try:
            await self._database.run(_PUBLISH, *columns, published_at, activated_at, actor)
        except asyncpg.UniqueViolationError as error:
            raise PublishedMeanwhile from error
