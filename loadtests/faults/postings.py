"""Postings from outside: what was paid elsewhere, and what fills an account."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yidi.policy.v1 import policy_pb2
from yidi.settlement.v1 import insured_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """One posting; `source` is of this one alone, so that a second row of it is found."""

    posting_id: str
    area: str
    insurance: int
    person_id: str
    source: str
    account_id: str = ""
    account_delta_fen: int = 0
    period: str = ""
    pooled_used_fen: int = 0

    @property
    def item(self) -> insured_pb2.ExternalItem:
        """The posting as it is sent."""
        item = insured_pb2.ExternalItem(
            id=self.posting_id,
            insured_area=self.area,
            insurance=self.insurance,  # type: ignore[arg-type]
            person_id=self.person_id,
            account_id=self.account_id,
            account_delta_fen=self.account_delta_fen,
            source=self.source,
        )
        if self.period:
            item.deltas.append(
                policy_pb2.Accumulator(period=self.period, pooled_used_fen=self.pooled_used_fen)
            )
        return item

    @property
    def content(self) -> str:
        """Everything it means, to be compared with what is stored."""
        return content_of(
            self.area,
            self.insurance,
            self.person_id,
            self.source,
            {self.period: {"pooled_used_fen": self.pooled_used_fen}} if self.period else {},
            (self.account_id, self.account_delta_fen) if self.account_id else None,
        )


def content_of(
    area: str,
    insurance: int,
    person_id: str,
    source: str,
    deltas: Mapping[str, Mapping[str, int]],
    account: tuple[str, int] | None,
) -> str:
    """One text for one meaning; deltas of nothing mean nothing."""
    changed: dict[str, Any] = {
        period: {name: value for name, value in sorted(values.items()) if value}
        for period, values in sorted(deltas.items())
    }
    return json.dumps([area, insurance, person_id, source, changed, account])
