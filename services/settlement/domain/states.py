"""The life of a settlement at the care place (PROTOCOL: one id, one decision).

`PENDING → COMPLETED | REJECTED | IN_DOUBT`, `IN_DOUBT → COMPLETED | REJECTED | ABORTED`; all others
are terminal. Every change is a compare-and-set on the old state: the store takes these pairs into
its statement, so no other change can happen, whoever asks.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """State of a settlement at the care place."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    REJECTED = "REJECTED"
    IN_DOUBT = "IN_DOUBT"
    ABORTED = "ABORTED"


TRANSITIONS: frozenset[tuple[State, State]] = frozenset(
    {
        (State.PENDING, State.COMPLETED),
        (State.PENDING, State.REJECTED),
        (State.PENDING, State.IN_DOUBT),
        (State.IN_DOUBT, State.COMPLETED),
        (State.IN_DOUBT, State.REJECTED),
        (State.IN_DOUBT, State.ABORTED),
    }
)
"""Allowed changes, (from, to)."""

OPEN = frozenset({State.PENDING, State.IN_DOUBT})
"""States whose outcome is not known here yet."""

BILL_FREE = frozenset({State.REJECTED, State.ABORTED})
"""States that free the bill for another settlement (a completed undo will, too)."""


def allowed(old: State, new: State) -> bool:
    """Whether a settlement may go from `old` to `new`."""
    return (old, new) in TRANSITIONS


class Decision(StrEnum):
    """What the insured place has decided, once and for ever."""

    COMMITTED = "COMMITTED"
    REJECTED = "REJECTED"
    ABORTED = "ABORTED"
