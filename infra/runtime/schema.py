"""What a service tells of its schema; apart from `migrate`, whose imports no server needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Schema:
    """A service's schema: its name and where its migrations are.

    `partitioned` names the tables that are partitioned by range of a UUIDv7 key, a month each.
    """

    service: str
    migrations: Path
    partitioned: tuple[str, ...] = ()
