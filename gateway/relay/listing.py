"""The nation's directory: the sites of its settings and the downtimes of its store, in memory.

The revision is a number made from the content, so it changes with any change, also after a restart,
and is the same in every replica. Another replica's announcement is seen at the next refresh.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC

import structlog
from google.protobuf.message import Message

from gateway.relay.store import NationStore
from infra.runtime.background import Background
from infra.runtime.clock import Clock, instant
from infra.runtime.directory import refuse_downtime
from infra.runtime.errors import Reason, Refusal, Violation
from yidi.relay.v1 import relay_pb2

_log = structlog.get_logger("yidi.directory")


class Listing:
    """Sites, areas and downtimes as the nation lists them."""

    def __init__(
        self,
        *,
        sites: Sequence[relay_pb2.DirectorySite],
        store: NationStore,
        clock: Clock,
        every_ms: int,
    ) -> None:
        self._sites = list(sites)
        self._store = store
        self._clock = clock
        self._areas = {
            code: (site.code, area.code, area.name)
            for site in sites
            for area in site.areas
            for code in (area.code, *area.aliases)
        }
        self._downtimes: list[relay_pb2.Downtime] = []
        self._background = Background(
            "downtimes", self.refresh, rest=lambda: every_ms / 1000, at_once=False
        )

    def site_of(self, area: str) -> str:
        """The site of an area or county code; refuses with AREA_UNKNOWN."""
        return self._area(area)[0]

    def check_downtime(self, area: str) -> None:
        """Refuse with SITE_DOWNTIME while the area or its site is announced to be down."""
        site, pooling_area, name = self._area(area)
        refuse_downtime(self._downtimes, site, pooling_area, name, self._clock.now_ms())

    def snapshot(self) -> relay_pb2.GetDirectoryResponse:
        """The directory as of now; what has ended is left out."""
        now_ms = self._clock.now_ms()
        downtimes = [d for d in self._downtimes if d.end_time.ToMilliseconds() > now_ms]
        answer = relay_pb2.GetDirectoryResponse(
            revision=_revision([*self._sites, *downtimes]), sites=self._sites, downtimes=downtimes
        )
        answer.as_of_time.FromMilliseconds(now_ms)
        return answer

    async def announce(
        self, announcer: str, request_id: str, asked: relay_pb2.Downtime
    ) -> relay_pb2.Downtime:
        """Announce a downtime once; refuses with MESSAGE_INVALID or REQUEST_ID_REUSED."""
        downtime = self._checked(asked)
        now = instant(self._clock)
        standing = await self._store.announced(announcer, request_id)
        if standing is None and downtime.end_time.ToDatetime(UTC) <= now:
            ended = Violation("downtime.end_time", "已经过去")
            raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=[ended])
        if standing is None:
            standing = await self._store.announce(announcer, request_id, downtime, now)
        if standing != downtime:
            raise Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=request_id)
        await self.refresh()
        return standing

    async def refresh(self) -> None:
        """Read the downtimes again; a failure is logged and the known ones stay."""
        try:
            self._downtimes = await self._store.downtimes(instant(self._clock))
        except Refusal as refusal:
            _log.warning("downtimes not refreshed", reason=refusal.name)

    def start(self) -> None:
        """Refresh now and then from a task of its own."""
        self._background.start()

    async def stop(self) -> None:
        """End the task."""
        await self._background.stop()

    def _area(self, code: str) -> tuple[str, str, str]:
        found = self._areas.get(code)
        if found is None:
            raise Refusal(Reason.ERROR_REASON_AREA_UNKNOWN, area=code)
        return found

    def _checked(self, asked: relay_pb2.Downtime) -> relay_pb2.Downtime:
        faults = []
        downtime = relay_pb2.Downtime()
        downtime.CopyFrom(asked)
        for time in (downtime.start_time, downtime.end_time):
            time.nanos -= time.nanos % 1_000_000  # the clock's own grain
        if downtime.site not in {site.code for site in self._sites}:
            faults.append(Violation("downtime.site", "不在全国目录中"))
        elif downtime.area:
            site, downtime.area, _ = self._areas.get(asked.area, ("", asked.area, ""))
            if site != downtime.site:
                faults.append(Violation("downtime.area", "不是该省的统筹区"))
        if downtime.start_time.ToMilliseconds() >= downtime.end_time.ToMilliseconds():
            faults.append(Violation("downtime.end_time", "必须晚于开始时间"))
        if faults:
            raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=faults)
        return downtime


def _revision(content: Sequence[Message]) -> int:
    parts = b"".join(part.SerializeToString(deterministic=True) for part in content)
    return int.from_bytes(hashlib.sha256(parts).digest()[:6]) + 1
