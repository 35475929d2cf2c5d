"""Requests that change something, each with the answer to give again (idempotency)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.runtime.errors import Reason, Refusal


@dataclass(frozen=True, slots=True)
class Request:
    """A caller's number of a request, unique for ever, and the digest of what it asks."""

    caller: str
    request_id: str
    digest: bytes


async def answered(connection: AsyncConnection, request: Request) -> bytes | None:
    """The answer that was given to the request, if it was; raises `Refusal`
    (REQUEST_ID_REUSED)."""
    row = (
        await connection.execute(
            _ANSWERED, {"caller": request.caller, "request_id": request.request_id}
        )
    ).one_or_none()
    if row is None:
        return None
    if row.digest != request.digest:
        raise Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=request.request_id)
    answer: bytes = row.answer
    return answer


async def keep_answer(
    connection: AsyncConnection, request: Request, answer: bytes, at: datetime
) -> None:
    """Keep the answer, in the transaction of the change."""
    await connection.execute(
        _KEEP,
        {
            "caller": request.caller,
            "request_id": request.request_id,
            "digest": request.digest,
            "answer": answer,
            "at": at,
        },
    )


_ANSWERED = text("""
    SELECT digest, answer FROM catalog.request
    WHERE caller = :caller AND request_id = :request_id""")

_KEEP = text("""
    INSERT INTO catalog.request (caller, request_id, digest, answer, at)
    VALUES (:caller, :request_id, :digest, :answer, :at)""")
