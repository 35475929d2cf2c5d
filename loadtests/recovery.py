"""The load of `yidi bench recovery`: settlements that are decided and whose answers are lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from infra.runtime.errors import Reason, Refusal
from loadtests.settle import Bills, Send

_REFUSED_MAX = 1_000


async def leave_in_doubt(
    bills: Bills,
    sends: Sequence[Send],
    *,
    number: int,
    concurrency: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Settle until `number` callers were told that their outcome is pending, each once.

    Raise `RuntimeError` when a settlement gets through, or when too many are refused.
    """
    left = number
    told = 0
    refused: Counter[str] = Counter()

    async def caller() -> None:
        nonlocal left, told
        while left > 0:
            left -= 1
            door, request = bills.next()
            try:
                await sends[door](request)
            except Refusal as refusal:
                if refusal.reason != Reason.ERROR_REASON_OUTCOME_PENDING:
                    left += 1
                    refused[refusal.name] += 1
                    if refused.total() > _REFUSED_MAX:
                        raise RuntimeError(
                            f"the bench cannot leave settlements in doubt: {dict(refused)}"
                        ) from refusal
                    continue
            else:
                raise RuntimeError("a settlement was answered although its answer was to be lost")
            told += 1
            if told % 1_000 == 0:
                on_progress(told)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
