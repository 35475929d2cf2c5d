"""Batches of rows on their way in and out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ROWS = 2_000
"""Rows decoded between two turns of the event loop."""


def rows_of(types: Mapping[str, str]) -> str:
    """A relation `t` of arrays that are bound as `columns` makes them."""
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in types.items())
    return f"unnest({arrays}) AS t({', '.join(types)})"


def columns(types: Mapping[str, str], rows: Iterable[tuple[object, ...]]) -> dict[str, Any]:
    """The rows as one array per column."""
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    return dict(zip(types, map(list, columns), strict=True))
