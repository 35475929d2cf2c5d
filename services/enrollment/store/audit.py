"""The audit of enrollment: who did what to whom; of the content only a digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One line of the audit: who did what to whom, and the digest of what."""

    actor: str
    action: str
    subject: str
    digest: bytes


AUDIT = """
INSERT INTO enrollment.audit (at, actor, action, subject, digest)
SELECT $1, line.actor, line.action, line.subject, line.digest
FROM unnest($2::text[], $3::text[], $4::text[], $5::bytea[])
     AS line (actor, action, subject, digest)
"""
"""$1 the instant, $2 to $5 the columns."""


def columns(rows: Sequence[AuditRow]) -> tuple[list[str], list[str], list[str], list[bytes]]:
    """The arguments $2 to $5 of `AUDIT`."""
    return (
        [row.actor for row in rows],
        [row.action for row in rows],
        [row.subject for row in rows],
        [row.digest for row in rows],
    )
