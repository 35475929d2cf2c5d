"""Which chronic diseases are opened for cross-province settlement: a dated national table.

A disease that is not opened on the day of the visit is paid in full by the patient and claimed at
home (医保办发〔2024〕19号). Local and in-province visits are not bound by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from services.policy.domain.canonical import DocumentError
from services.policy.domain.case import CannotCompute, Case
from services.policy.domain.facts import class_code


class DiseaseNotOpened(CannotCompute):
    """The disease is not opened for cross-province settlement on the day of the visit."""

    def __init__(self, disease: str, day: str) -> None:
        super().__init__(f"{disease} on {day}")
        self.disease = disease
        self.day = day


class Opened:
    """The table: disease or class code → first day, ISO."""

    def __init__(self, since: Mapping[str, str]) -> None:
        self._since = dict(since)

    def require(self, case: Case) -> None:
        """Raise `DiseaseNotOpened` for a cross-province chronic visit that is not opened."""
        if case.route != "cross_province" or case.care_type != "chronic":
            return
        disease = case.disease
        since = self._since.get(disease) or self._since.get(class_code(disease))
        if since is None or case.end_date < since:
            raise DiseaseNotOpened(disease, case.end_date)


def read_opened(data: Mapping[str, Any]) -> Opened:
    """The table that `data` (loaded YAML) holds; raise `DocumentError`."""
    since: dict[str, str] = {}
    for number, row in enumerate(data["diseases"]):
        where = f"diseases[{number}]"
        code, day = str(row["code"]), str(row["since"])
        if row["source"] not in data["sources"]:
            raise DocumentError(where, f"source {row['source']!r} is not among the sources")
        if code in since:
            raise DocumentError(where, f"{code} stands twice")
        try:
            date.fromisoformat(day)
        except ValueError as error:
            raise DocumentError(where, f"{day} is no day of the calendar") from error
        since[code] = day
    return Opened(since)
