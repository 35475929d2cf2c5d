"""The catalogue's tables and every statement on them.

| statement | when | trips |
|---|---|---|
| `newest` | every 2 s | 1 |
| `read_snapshot` | after a publication | 1 transaction, a stream per list and for changes |
| `publish` | loading a list | 1 transaction, 6 statements and a COPY |
| `ListStore` | an operator looks | 1 each |

Splitting fees makes none. What is published never changes: a correction is a publication more.
"""

from pathlib import Path

from infra.runtime.schema import Schema
from services.catalog.store.publications import Publication, Published, VersionConflict, publish
from services.catalog.store.snapshot import Newest, Snapshot, newest, read_snapshot

SCHEMA = Schema("catalog", Path(__file__).parent.parent / "migrations")

__all__ = [
    "SCHEMA",
    "Newest",
    "Publication",
    "Published",
    "Snapshot",
    "VersionConflict",
    "newest",
    "publish",
    "read_snapshot",
]
