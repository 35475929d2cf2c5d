"""Own areas are always known, foreign ones for five minutes (PROTOCOL §5)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_site import AREA, COUNTY, FOREIGN_AREA, OTHER, SITE, site_settings

from infra.runtime.clock import ManualClock
from infra.runtime.config import Area
from infra.runtime.directory import Directory, DirectoryFollower, site_message
from infra.runtime.errors import Reason, Refusal
from yidi.common.v1 import types_pb2
from yidi.relay.v1 import relay_pb2

NOW = 1_795_000_000_000
MAX_AGE_MS = 300_000
SECOND_AREA = "440100"


def snapshot(
    revision: int = 1, ms: int = NOW, revisions: tuple[int, int] = (1, 1)
) -> relay_pb2.GetDirectoryResponse:
    """What the nation answers: Beijing, with employees' inpatient care only."""
    beijing = Area(
        code=FOREIGN_AREA,
        name="北京市",
        aliases=("110105",),
        insurances=("310",),
        care_types=("21",),
    )
    response = relay_pb2.GetDirectoryResponse(
        revision=revision, sites=[site_message(OTHER, "北京", [beijing], revisions)]
    )
    response.as_of_time.FromMilliseconds(ms)
    return response


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def directory(clock: ManualClock, tmp_path: Path) -> Directory:
    settings = site_settings(tmp_path, edge=1, internal=1)
    second = Area(code=SECOND_AREA, name="广州市")
    site = settings.site.model_copy(update={"areas": (*settings.site.areas, second)})
    return Directory(settings.model_copy(update={"site": site}), clock)


def reason(directory: Directory, area: str) -> str:
    with pytest.raises(Refusal) as refused:
        directory.place(area)
    return refused.value.name


def test_own_areas_are_known_without_the_nation_and_never_go_stale(
    directory: Directory, clock: ManualClock
) -> None:
    clock.ms += 10 * 365 * 86_400_000
    place = directory.place(COUNTY)
    assert (place.area, place.name, place.site) == (AREA, "湛江市", SITE)


def test_without_a_snapshot_foreign_areas_are_stale_and_not_unknown(directory: Directory) -> None:
    assert reason(directory, FOREIGN_AREA) == "DIRECTORY_STALE"


def test_foreign_areas_are_known_for_five_minutes(directory: Directory, clock: ManualClock) -> None:
    directory.update(snapshot())
    clock.ms += MAX_AGE_MS
    assert directory.place("110105").area == FOREIGN_AREA
    assert reason(directory, "999999") == "AREA_UNKNOWN"
    clock.ms += 1
    assert reason(directory, FOREIGN_AREA) == "DIRECTORY_STALE"
    unchanged = relay_pb2.GetDirectoryResponse(revision=1)
    unchanged.as_of_time.FromMilliseconds(clock.ms)
    directory.update(unchanged)
    assert directory.place(FOREIGN_AREA).site == OTHER


def test_an_empty_answer_of_another_revision_does_not_refresh(
    directory: Directory, clock: ManualClock
) -> None:
    directory.update(snapshot())
    clock.ms += MAX_AGE_MS + 1
    other = relay_pb2.GetDirectoryResponse(revision=2)
    other.as_of_time.FromMilliseconds(clock.ms)
    directory.update(other)
    assert reason(directory, FOREIGN_AREA) == "DIRECTORY_STALE"


def test_own_areas_win_over_what_the_nation_says(directory: Directory) -> None:
    response = snapshot()
    response.sites[0].areas.add(code=AREA, name="别处")
    directory.update(response)
    assert directory.place(AREA).site == SITE


def test_routes_come_from_the_directory_and_not_from_digits(directory: Directory) -> None:
    directory.update(snapshot())
    own, county, second, foreign = (
        directory.place(area) for area in (AREA, COUNTY, SECOND_AREA, FOREIGN_AREA)
    )
    assert directory.route(own, county) == types_pb2.ROUTE_LOCAL
    assert directory.route(own, second) == types_pb2.ROUTE_IN_PROVINCE
    assert directory.route(own, foreign) == types_pb2.ROUTE_CROSS_PROVINCE


@pytest.mark.parametrize(
    ("insurance", "care_type", "revisions", "refused"),
    [
        (types_pb2.INSURANCE_TYPE_EMPLOYEE, types_pb2.CARE_TYPE_INPATIENT, (1, 1), ""),
        (types_pb2.INSURANCE_TYPE_EMPLOYEE, types_pb2.CARE_TYPE_INPATIENT, (1, 9), ""),
        (
            types_pb2.INSURANCE_TYPE_RESIDENT,
            types_pb2.CARE_TYPE_INPATIENT,
            (1, 1),
            "SERVICE_NOT_OPEN",
        ),
        (
            types_pb2.INSURANCE_TYPE_EMPLOYEE,
            types_pb2.CARE_TYPE_PHARMACY,
            (1, 1),
            "SERVICE_NOT_OPEN",
        ),
        (
            types_pb2.INSURANCE_TYPE_EMPLOYEE,
            types_pb2.CARE_TYPE_INPATIENT,
            (2, 3),
            "CONTRACT_TOO_OLD",
        ),
        (
            types_pb2.INSURANCE_TYPE_EMPLOYEE,
            types_pb2.CARE_TYPE_INPATIENT,
            (0, 0),
            "CONTRACT_TOO_OLD",
        ),
    ],
)
def test_what_the_insured_area_has_not_opened_is_refused_before_anything_is_written(
    directory: Directory,
    insurance: types_pb2.InsuranceType.ValueType,
    care_type: types_pb2.CareType.ValueType,
    revisions: tuple[int, int],
    refused: str,
) -> None:
    directory.update(snapshot(revisions=revisions))
    place = directory.place(FOREIGN_AREA)
    if not refused:
        directory.check_open(place, insurance, care_type)
        return
    with pytest.raises(Refusal) as refusal:
        directory.check_open(place, insurance, care_type)
    assert refusal.value.name == refused


def test_names_for_people_fall_back_to_codes(directory: Directory) -> None:
    directory.update(snapshot())
    names = [directory.name(area) for area in (AREA, FOREIGN_AREA, "999999")]
    assert names == ["湛江市", "北京市", "999999"]
    assert [directory.site_name(site) for site in (OTHER, "999999")] == ["北京", "999999"]


async def test_the_follower_keeps_the_old_snapshot_when_the_relay_does_not_answer(
    directory: Directory,
) -> None:
    asked: list[int] = []

    async def fetch(request: relay_pb2.GetDirectoryRequest) -> relay_pb2.GetDirectoryResponse:
        asked.append(request.known_revision)
        if len(asked) == 2:
            raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="relay")
        return snapshot(revision=5)

    follower = DirectoryFollower(directory, fetch, every_ms=60_000)
    await follower.refresh()
    with pytest.raises(Refusal):
        await follower.refresh()
    assert asked == [0, 5]
    assert directory.place(FOREIGN_AREA).site == OTHER


async def test_the_follower_asks_at_once_and_ends_when_told(directory: Directory) -> None:
    asked = asyncio.Event()

    async def fetch(_: relay_pb2.GetDirectoryRequest) -> relay_pb2.GetDirectoryResponse:
        asked.set()
        return snapshot()

    follower = DirectoryFollower(directory, fetch, every_ms=60_000)
    follower.start()
    await asyncio.wait_for(asked.wait(), 30)
    await follower.stop()
    await DirectoryFollower(directory, fetch, every_ms=60_000).stop()


def down(site: str, area: str, start_ms: int, end_ms: int, notice: str) -> relay_pb2.Downtime:
    downtime = relay_pb2.Downtime(site=site, area=area, notice=notice)
    downtime.start_time.FromMilliseconds(start_ms)
    downtime.end_time.FromMilliseconds(end_ms)
    return downtime


def test_an_area_in_downtime_is_refused_inside_its_window_only(
    directory: Directory, clock: ManualClock
) -> None:
    answer = snapshot()
    answer.downtimes.append(down(OTHER, FOREIGN_AREA, NOW + 1_000, NOW + 3_000, "系统升级。"))
    answer.downtimes.append(down(OTHER, "", NOW + 1_000, NOW + 3_600_000, "机房搬迁"))
    answer.downtimes.append(down("999999", "", NOW, NOW + 9_000_000, "别处"))
    directory.update(answer)
    place = directory.place(FOREIGN_AREA)

    def refused_at(ms: int) -> Refusal | None:
        clock.ms = ms
        try:
            directory.check_open(
                place, types_pb2.INSURANCE_TYPE_EMPLOYEE, types_pb2.CARE_TYPE_INPATIENT
            )
        except Refusal as refusal:
            return refusal
        return None

    assert refused_at(NOW + 999) is None
    refusal = refused_at(NOW + 1_000)
    assert refusal is not None
    assert refusal.name == "SITE_DOWNTIME"
    # The one that ends last is told, in Chinese time.
    assert refusal.details["site"] == "北京市"
    assert refusal.details["until"] == "2026-11-18 20:06"
    assert refusal.details["notice"] == "机房搬迁"
    assert refusal.retry_ms == 3_599_000
    assert refused_at(NOW + 3_600_000) is None


def test_the_own_site_may_be_announced_down_and_the_list_is_always_complete(
    directory: Directory,
) -> None:
    answer = snapshot(revision=7)
    answer.downtimes.append(down(SITE, AREA, NOW, NOW + 1_000, "系统升级"))
    directory.update(answer)
    with pytest.raises(Refusal, match="SITE_DOWNTIME"):
        directory.check_downtime(directory.place(COUNTY))
    directory.check_downtime(directory.place(SECOND_AREA))
    unchanged = relay_pb2.GetDirectoryResponse(revision=7, as_of_time=answer.as_of_time)
    directory.update(unchanged)
    directory.check_downtime(directory.place(AREA))
    assert directory.place(FOREIGN_AREA).site == OTHER
