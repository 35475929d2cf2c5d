"""How commands ask: every page of a list as one answer, the province that has a thing."""

from __future__ import annotations

from typing import Any, cast

import pytest

from infra.cli.asking import every_page, held_by
from infra.cli.client import Clients
from infra.runtime.errors import Reason, Refusal
from yidi.settlement.v1 import audit_pb2

NOT_HERE = Reason.ERROR_REASON_AUDIT_CASE_NOT_FOUND


@pytest.mark.parametrize("count", [0, 1, 2, 5])
async def test_every_page_is_one_answer(count: int) -> None:
    """Two cases a page; each page is asked for by what the one before answered."""
    ids = [f"case {number}" for number in range(count)]

    async def call(request: Any, timeout: float) -> audit_pb2.ListAuditCasesResponse:
        first = int(request.page_token or 0)
        more = str(first + 2) if first + 2 < count else ""
        cases = [audit_pb2.AuditCase(case_id=one) for one in ids[first : first + 2]]
        return audit_pb2.ListAuditCasesResponse(cases=cases, next_page_token=more)

    answer = await every_page(call, audit_pb2.ListAuditCasesRequest(), 1.0)
    assert ([case.case_id for case in answer.cases], answer.next_page_token) == (ids, "")


class Provinces:
    """Three provinces, asked in their order."""

    def chosen(self, site: str | None) -> list[str]:
        return ["110000", "310000", "440000"] if site is None else [site]


@pytest.mark.parametrize(
    ("holder", "site", "asked"),
    [
        ("310000", None, ["110000", "310000"]),
        ("440000", None, ["110000", "310000", "440000"]),
        ("440000", "440000", ["440000"]),
    ],
)
async def test_the_province_that_has_it_answers(
    holder: str, site: str | None, asked: list[str]
) -> None:
    seen: list[str] = []

    async def ask(one: str) -> str:
        seen.append(one)
        if one != holder:
            raise Refusal(NOT_HERE, value="c")
        return "found"

    assert await held_by(cast(Clients, Provinces()), site, NOT_HERE, ask) == (holder, "found")
    assert seen == asked


@pytest.mark.parametrize(
    ("reason", "asked"), [(NOT_HERE, 3), (Reason.ERROR_REASON_DATABASE_UNAVAILABLE, 1)]
)
async def test_a_refusal_when_none_has_it(reason: Reason.ValueType, asked: int) -> None:
    """The last one's when all refuse alike, and at once any other than that it is not there."""
    seen: list[str] = []

    async def ask(one: str) -> str:
        seen.append(one)
        raise Refusal(reason, value="c", cause="c")

    with pytest.raises(Refusal) as caught:
        await held_by(cast(Clients, Provinces()), None, NOT_HERE, ask)
    assert (caught.value.reason, len(seen)) == (reason, asked)
