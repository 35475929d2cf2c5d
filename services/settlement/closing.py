"""What state an answer leads to at the care place."""

from __future__ import annotations

import structlog
from google.protobuf.message import DecodeError

from services.settlement.domain.states import State
from services.settlement.store.care import Closing
from yidi.common.v1 import envelope_pb2
from yidi.settlement.v1 import care_pb2

_log = structlog.get_logger("yidi.settlement")


def closing_of(item: care_pb2.CloseItem) -> Closing:
    """The state that an answer leads to. Only a decided row, or a hop that says it sent nothing
    on, makes REJECTED; whatever else happened after the call was begun is IN_DOUBT.
    """
    kind = item.WhichOneof("outcome")
    try:
        return _closing(item, kind)
    except DecodeError:
        # Its neighbours in the batch must not wait for it.
        _log.error("alarm: an answer that cannot be read", settlement_id=item.id)
        return Closing(item.id, State.IN_DOUBT, None, None, None, b"")


def _closing(item: care_pb2.CloseItem, kind: str | None) -> Closing:
    header: envelope_pb2.OutcomeHeader | None = None
    outcome: envelope_pb2.Outcome | None = None
    reason: bytes | None = None
    if kind == "committed":
        state = State.COMPLETED
        outcome = item.committed
        header = envelope_pb2.OutcomeHeader.FromString(outcome.header)
    elif kind in ("rejected", "aborted"):
        state = State.REJECTED if kind == "rejected" else State.ABORTED
        rejection = item.rejected if kind == "rejected" else item.aborted
        reason = envelope_pb2.Rejection.FromString(rejection).status.SerializeToString()
    elif kind == "refused":
        state = State.REJECTED if item.refused.not_forwarded else State.IN_DOUBT
        reason = item.refused.status.SerializeToString()
    else:
        state = State.IN_DOUBT
    hops = care_pb2.CloseItem(hops=item.hops).SerializeToString()
    return Closing(item.id, state, header, outcome, reason, hops)
