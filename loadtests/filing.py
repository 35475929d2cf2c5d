"""The load of `yidi bench filing`: a file of people, their filings, visits to decide on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from infra.local.people import COUNTIES, make_people
from infra.runtime.clock import Clock, new_id
from loadtests.settle import ECHO_PATH, Send
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.filing.v1 import filing_pb2

AREA = "440800"
FILINGS_EACH = 3
HEADER = "psn_name,certno,insutype,psn_type,begndate,card_no,ec_token"
COLUMNS = (
    "filing_id",
    "person_id",
    "insured_area",
    "insurance",
    "kind",
    "channel",
    "care_place",
    "start_date",
    "end_date",
    "filed_on",
    "referral_institution",
    "commitment",
    "recorded_at",
)
"""Columns of `filing_rows`; the others of the table keep their defaults."""
_PLACES = (
    ("110000", "110000", types_pb2.FILING_KIND_RETIRED_RESETTLED, True),
    ("370100", "370000", types_pb2.FILING_KIND_OTHER_TEMPORARY, True),
    ("370800", "370000", types_pb2.FILING_KIND_OTHER_TEMPORARY, False),
)
"""Place filed to, its site, kind, and whether the filing is in force."""
_BORN = date(1940, 1, 1), date(1966, 1, 1)
_SEED = 20_260_103
_ROWS = 5_000
_DEADLINE_S = 20.0


def write_people(files: Sequence[Path], numbers: Sequence[int], day: date) -> None:
    """Retired people as files that enrollment imports, `numbers` of them by file; employees since a
    year before `day`, nobody twice."""
    people = make_people(
        Random(_SEED), counties=COUNTIES[AREA], born_from=_BORN[0], born_until=_BORN[1]
    )
    since = (day - timedelta(days=365)).isoformat()
    for file, number in zip(files, numbers, strict=True):
        with file.open("w", encoding="utf-8") as out:
            out.write(HEADER + "\n")
            out.writelines(
                f"{one.name},{one.id_number},310,12,{since},"
                f"{one.social_security_card},{one.electronic_token}\n"
                for one in islice(people, number)
            )


async def filing_rows(person_ids: Sequence[str], day: date) -> AsyncIterator[bytes]:
    """`FILINGS_EACH` filings of each person as COPY reads them, in blocks.

    One filing of everybody after the other: those of one person lie as far apart as filings that
    were made in different years.
    """
    random = Random(person_ids[0])
    for place, _, kind, in_force in _PLACES:
        filed = day - timedelta(days=30 if in_force else 300)
        end = r"\N" if in_force else (day - timedelta(days=100)).isoformat()
        told = "\t".join(
            map(
                str,
                (
                    AREA,
                    types_pb2.INSURANCE_TYPE_EMPLOYEE,
                    kind,
                    types_pb2.FILING_CHANNEL_NATIONAL_APP,
                    place,
                    filed,
                    end,
                    filed,
                    "",
                    types_pb2.COMMITMENT_STATE_MATERIAL_COMPLETE,
                    f"{filed}T00:00:00Z",
                ),
            )
        )
        for first in range(0, len(person_ids), _ROWS):
            yield "".join(
                f"{UUID(int=random.getrandbits(128))}\t{person_id}\t{told}\n"
                for person_id in person_ids[first : first + _ROWS]
            ).encode()


class Questions:
    """Batches of visits to decide on, made beforehand and asked by turns; each visit is filed."""

    def __init__(
        self, clock: Clock, person_ids: Sequence[str], day: date, *, batches: int, size: int
    ) -> None:
        """Of people drawn from all `person_ids`, `size` to a batch."""
        random = Random(_SEED)
        filed = cycle([(place, site) for place, site, _, in_force in _PLACES if in_force])
        self._requests = cycle(
            [
                filing_pb2.BatchResolveEntitlementRequest(
                    items=[
                        _question(clock, random.choice(person_ids), day, *next(filed))
                        for _ in range(size)
                    ]
                )
                for _ in range(batches)
            ]
        )

    def next(self) -> tuple[int, filing_pb2.BatchResolveEntitlementRequest]:
        """The next batch, for the only way to send it."""
        return 0, next(self._requests)


def _question(
    clock: Clock, person_id: str, day: date, place: str, site: str
) -> filing_pb2.ResolveEntitlementItem:
    return filing_pb2.ResolveEntitlementItem(
        id=new_id(clock),
        person_id=person_id,
        person_class=types_pb2.PERSON_CLASS_RETIRED,
        visit=visit_pb2.Visit(
            care_area=place,
            insured_area=AREA,
            insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
            care_type=types_pb2.CARE_TYPE_INPATIENT,
            start_date=(day - timedelta(days=5)).isoformat(),
            end_date=day.isoformat(),
        ),
        care_site=site,
        route=types_pb2.ROUTE_CROSS_PROVINCE,
        day=day.isoformat(),
        insured_since=(day - timedelta(days=365)).isoformat(),
    )


def asking(stub: Any) -> Send:
    """Asks for the decisions of a batch; raise `RuntimeError` when one is not entitled."""

    async def send(request: filing_pb2.BatchResolveEntitlementRequest) -> None:
        answer = await stub.BatchResolveEntitlement(request, timeout=_DEADLINE_S)
        entitled = sum(result.HasField("entitlement") for result in answer.results)
        if entitled != len(request.items):
            refused = next(one for one in answer.results if not one.HasField("entitlement"))
            raise RuntimeError(
                f"{len(request.items)} visits were asked about, {entitled} are entitled: "
                f"{refused.error.message}"
            )

    return send


def echoing(channel: Any) -> Send:
    """Sends the same request to the echo."""
    message = filing_pb2.BatchResolveEntitlementRequest
    call = channel.unary_unary(ECHO_PATH, message.SerializeToString, message.FromString)

    async def send(request: filing_pb2.BatchResolveEntitlementRequest) -> None:
        await call(request, timeout=_DEADLINE_S)

    return send
