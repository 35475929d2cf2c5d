"""The directory as one process sees it: which site a pooling area belongs to, and what it opened.

A site's own areas come from its site file and never go stale, so local and in-province visits work
with the nation down, also after a restart. Foreign areas come from the nation's snapshot: usually
seconds old, refused (DIRECTORY_STALE) after five minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from infra.runtime.background import Background
from infra.runtime.clock import SHANGHAI, Clock
from infra.runtime.config import Area, Settings
from infra.runtime.contract import REVISION
from infra.runtime.errors import Reason, Refusal
from infra.runtime.types import national_code
from yidi.common.v1 import types_pb2
from yidi.relay.v1 import relay_pb2

Fetch = Callable[[relay_pb2.GetDirectoryRequest], Awaitable[relay_pb2.GetDirectoryResponse]]


@dataclass(frozen=True, slots=True)
class Place:
    """A pooling area and its site."""

    area: str
    """Code of the pooling area itself, also when asked for by a county code."""
    name: str
    site: str
    insurances: frozenset[str]
    care_types: frozenset[str]
    min_revision: int
    max_revision: int


def site_message(
    code: str, name: str, areas: Iterable[Area], revisions: tuple[int, int] = (REVISION, REVISION)
) -> relay_pb2.DirectorySite:
    """A site of the settings as the directory lists it."""
    return relay_pb2.DirectorySite(
        code=code,
        name=name,
        min_revision=revisions[0],
        max_revision=revisions[1],
        areas=[
            relay_pb2.DirectoryArea(
                code=area.code,
                name=area.name,
                aliases=area.aliases,
                insurances=area.insurances,
                care_types=area.care_types,
            )
            for area in areas
        ],
    )


def refuse_downtime(
    downtimes: Iterable[relay_pb2.Downtime], site: str, area: str, name: str, now_ms: int
) -> None:
    """Refuse with SITE_DOWNTIME an area (of that name) inside a window of it or of its whole site.

    The one that ends last is told: before that nothing can be done there.
    """
    running = [
        downtime
        for downtime in downtimes
        if downtime.site == site
        and downtime.area in ("", area)
        and downtime.start_time.ToMilliseconds() <= now_ms < downtime.end_time.ToMilliseconds()
    ]
    if not running:
        return
    last = max(running, key=lambda downtime: downtime.end_time.ToMilliseconds())
    end_ms = last.end_time.ToMilliseconds()
    raise Refusal(
        Reason.ERROR_REASON_SITE_DOWNTIME,
        site=name,
        until=f"{datetime.fromtimestamp(end_ms / 1000, SHANGHAI):%Y-%m-%d %H:%M}",
        notice=last.notice.rstrip("。"),
        retry_ms=end_ms - now_ms,
    )


class Directory:
    """Look-ups over the own areas and the latest snapshot of the foreign ones."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._own_site = settings.site.code
        self._own = _places(
            [site_message(settings.site.code, settings.site.name, settings.site.areas)]
        )
        self._max_age_ms = settings.limits.directory_max_age_ms
        self._foreign: dict[str, Place] = {}
        self.snapshot = relay_pb2.GetDirectoryResponse()

    def update(self, response: relay_pb2.GetDirectoryResponse) -> None:
        """Take in an answer to GetDirectory; one without sites says that nothing has changed."""
        if response.sites:
            self.snapshot.CopyFrom(response)
            self._foreign = _places(response.sites)
        elif response.revision == self.snapshot.revision:
            self.snapshot.as_of_time.CopyFrom(response.as_of_time)
            del self.snapshot.downtimes[:]
            self.snapshot.downtimes.extend(response.downtimes)

    def place(self, area: str) -> Place:
        """The place of an area or county code; refuse with AREA_UNKNOWN or DIRECTORY_STALE."""
        own = self._own.get(area)
        if own is not None:
            return own
        age_ms = self._clock.now_ms() - self.snapshot.as_of_time.ToMilliseconds()
        if age_ms > self._max_age_ms:
            raise Refusal(Reason.ERROR_REASON_DIRECTORY_STALE, retry_ms=2_000)
        found = self._foreign.get(area)
        if found is None:
            raise Refusal(Reason.ERROR_REASON_AREA_UNKNOWN, area=area)
        return found

    def name(self, area: str) -> str:
        """The name of an area for people; the code itself when it is not known."""
        found = self._own.get(area) or self._foreign.get(area)
        return found.name if found else area

    def site_name(self, site: str) -> str:
        """The name of a site for people; the code itself when it is not known."""
        return next((listed.name for listed in self.snapshot.sites if listed.code == site), site)

    def route(self, care: Place, insured: Place) -> types_pb2.Route.ValueType:
        """The route between two places."""
        if care.area == insured.area:
            return types_pb2.ROUTE_LOCAL
        if care.site == insured.site:
            return types_pb2.ROUTE_IN_PROVINCE
        return types_pb2.ROUTE_CROSS_PROVINCE

    def check_open(
        self,
        insured: Place,
        insurance: types_pb2.InsuranceType.ValueType,
        care_type: types_pb2.CareType.ValueType,
    ) -> None:
        """Refuse what the insured area has not opened, cannot understand, or is down for."""
        if not insured.min_revision <= REVISION <= insured.max_revision:
            raise Refusal(Reason.ERROR_REASON_CONTRACT_TOO_OLD)
        if (
            national_code(types_pb2.InsuranceType.DESCRIPTOR, insurance) not in insured.insurances
            or national_code(types_pb2.CareType.DESCRIPTOR, care_type) not in insured.care_types
        ):
            raise Refusal(Reason.ERROR_REASON_SERVICE_NOT_OPEN, area=insured.name)
        self.check_downtime(insured)

    def check_downtime(self, insured: Place) -> None:
        """Refuse with SITE_DOWNTIME while the area or its whole site is announced to be down."""
        refuse_downtime(
            self.snapshot.downtimes,
            insured.site,
            insured.area,
            insured.name,
            self._clock.now_ms(),
        )


class DirectoryFollower:
    """Keeps a directory fresh by asking the site's relay (or, in the relay, the nation)."""

    def __init__(self, directory: Directory, fetch: Fetch, *, every_ms: int) -> None:
        self._directory = directory
        self._fetch = fetch
        self._every_s = every_ms / 1000
        self._known = asyncio.Event()
        self._background = Background("directory", self.refresh, rest=self._rest)

    async def refresh(self) -> None:
        """Ask once; when that is refused the old snapshot stays."""
        known = self._directory.snapshot.revision
        self._directory.update(
            await self._fetch(relay_pb2.GetDirectoryRequest(known_revision=known))
        )
        self._known.set()

    async def first(self, seconds: float) -> None:
        """Wait for the first snapshot, but no longer: local visits need none.

        A server that took calls before it would refuse, undecided, what it is asked to decide.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._known.wait()

    def start(self) -> None:
        """Refresh now and then from a task of its own."""
        self._background.start()

    async def stop(self) -> None:
        """End the task."""
        await self._background.stop()

    def _rest(self) -> float:
        # Until the first snapshot is there nothing cross-province works: ask more often.
        return self._every_s if self._directory.snapshot.revision else 0.1


def _places(sites: Iterable[relay_pb2.DirectorySite]) -> dict[str, Place]:
    places = {}
    for site in sites:
        for area in site.areas:
            place = Place(
                area=area.code,
                name=area.name,
                site=site.code,
                insurances=frozenset(area.insurances),
                care_types=frozenset(area.care_types),
                min_revision=site.min_revision,
                max_revision=site.max_revision,
            )
            for code in (area.code, *area.aliases):
                places[code] = place
    return places
