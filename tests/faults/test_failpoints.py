"""Failpoints: what they do, to whom, how often, and that production refuses them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.runtime.clock import monotonic_us
from infra.runtime.config import Settings, SettingsError, load_settings
from infra.runtime.errors import Refusal
from infra.runtime.failpoints import (
    Action,
    FailpointError,
    Failpoints,
    Fault,
    FolderFailpoints,
    NullFailpoints,
    Place,
    arm,
    disarm,
    failpoints_of,
)

ROOT = Path(__file__).resolve().parents[2]
DECIDE, HOP = Place.INSURED_DECIDE_AFTER, Place.RELAY_NATION_BEFORE
IDS = ["0190aaaa-0000-7000-8000-000000000001", "0190bbbb-0000-7000-8000-000000000002"]


@dataclass(frozen=True)
class Thing:
    id: str


class Sender:
    """Answers every item it is sent, and remembers them."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.twice = asyncio.Event()

    async def send(self, items: Sequence[Thing]) -> list[Thing]:
        self.sent.append([item.id for item in items])
        if len(self.sent) == 2:
            self.twice.set()
        return list(items)


async def hop(points: Failpoints, sender: Sender) -> list[str]:
    things = [Thing(one) for one in IDS]
    answered = await points.hop(HOP, Place.RELAY_NATION_AFTER, things, sender.send)
    return [one.id for one in answered]


async def test_nothing_happens_without_a_folder() -> None:
    await NullFailpoints().at(DECIDE, IDS)
    assert await hop(NullFailpoints(), Sender()) == IDS


async def test_nothing_happens_unless_armed(tmp_path: Path) -> None:
    points = FolderFailpoints(tmp_path / "missing", site="440000")
    await points.at(DECIDE, IDS)
    assert await hop(points, Sender()) == IDS


async def test_raise_is_a_lost_database_at_a_write_and_a_lost_service_at_a_hop(
    tmp_path: Path,
) -> None:
    arm(tmp_path, "a", Fault(place=DECIDE, action=Action.RAISE))
    arm(tmp_path, "b", Fault(place=HOP, action=Action.RAISE))
    points = FolderFailpoints(tmp_path, site="440000")
    with pytest.raises(Refusal) as write:
        await points.at(DECIDE, IDS)
    assert write.value.name == "DATABASE_UNAVAILABLE"
    assert not write.value.decided
    sender = Sender()
    with pytest.raises(Refusal) as call:
        await hop(points, sender)
    assert call.value.name == "SERVICE_UNAVAILABLE"
    assert sender.sent == []


async def test_a_lost_answer_comes_after_the_work(tmp_path: Path) -> None:
    arm(tmp_path, "a", Fault(place=Place.RELAY_NATION_AFTER, action=Action.LOSE_ANSWER))
    sender = Sender()
    with pytest.raises(Refusal):
        await hop(FolderFailpoints(tmp_path, site="440000"), sender)
    assert sender.sent == [IDS]


async def test_times_bounds_over_all_processes(tmp_path: Path) -> None:
    arm(tmp_path, "a", Fault(place=DECIDE, action=Action.RAISE, times=2))
    first = FolderFailpoints(tmp_path, site="440000")
    second = FolderFailpoints(tmp_path, site="440000")
    for points in (first, second):
        with pytest.raises(Refusal):
            await points.at(DECIDE)
    await first.at(DECIDE)
    await second.at(DECIDE)
    assert disarm(tmp_path) == 2
    assert os.listdir(tmp_path) == []


async def test_without_a_bound_it_always_happens(tmp_path: Path) -> None:
    arm(tmp_path, "a", Fault(place=DECIDE, action=Action.RAISE, times=0))
    points = FolderFailpoints(tmp_path, site="440000")
    for _ in range(5):
        with pytest.raises(Refusal):
            await points.at(DECIDE)


async def test_match_and_site_choose_who_is_hit(tmp_path: Path) -> None:
    arm(tmp_path, "a", Fault(place=DECIDE, action=Action.RAISE, match="0190bbbb", site="440000"))
    await FolderFailpoints(tmp_path, site="110000").at(DECIDE, IDS)
    points = FolderFailpoints(tmp_path, site="440000")
    await points.at(DECIDE, IDS[:1])
    await points.at(Place.INSURED_DECIDE_BEFORE, IDS)
    with pytest.raises(Refusal):
        await points.at(DECIDE, IDS)


async def test_arming_and_disarming_reach_a_running_process(tmp_path: Path) -> None:
    points = FolderFailpoints(tmp_path, site="440000")
    assert not await fails(points)
    arm(tmp_path, "a", Fault(place=DECIDE, action=Action.RAISE, times=0))
    assert await soon(points, failing=True)
    disarm(tmp_path)
    assert await soon(points, failing=False)


async def soon(points: Failpoints, *, failing: bool) -> bool:
    """Whether the place fails, or no longer does, as soon as it should."""
    until_us = monotonic_us() + 30_000_000
    while monotonic_us() < until_us:
        if await fails(points) is failing:
            return True
        await asyncio.sleep(0.01)
    return False


async def fails(points: Failpoints) -> bool:
    try:
        await points.at(DECIDE)
    except Refusal:
        return True
    return False


async def test_delay(tmp_path: Path) -> None:
    arm(tmp_path, "a", Fault(place=DECIDE, action=Action.DELAY, ms=120))
    points = FolderFailpoints(tmp_path, site="440000")
    begun = monotonic_us()
    await points.at(DECIDE)
    assert monotonic_us() - begun >= 120_000


async def test_duplicate_sends_the_matching_items_twice_and_answers_once(tmp_path: Path) -> None:
    arm(tmp_path, "a", Fault(place=HOP, action=Action.DUPLICATE, match="0190bbbb"))
    sender = Sender()
    assert await hop(FolderFailpoints(tmp_path, site="440000"), sender) == IDS
    assert sender.sent == [IDS, IDS[1:]]


async def test_late_items_are_sent_when_nobody_waits(tmp_path: Path) -> None:
    arm(tmp_path, "a", Fault(place=HOP, action=Action.LATE, match="0190bbbb", ms=30))
    sender = Sender()
    assert await hop(FolderFailpoints(tmp_path, site="440000"), sender) == IDS[:1]
    assert sender.sent == [IDS[:1]]
    async with asyncio.timeout(30):
        await sender.twice.wait()
    assert sender.sent[1] == IDS[1:]


KILLED = """
import asyncio, pathlib, sys
from infra.runtime.failpoints import FolderFailpoints, Place
points = FolderFailpoints(pathlib.Path(sys.argv[1]), site="440000")
asyncio.run(points.at(Place.INSURED_DECIDE_AFTER))
print("lives")
"""


def test_kill_is_sigkill_and_is_counted_over_the_death(tmp_path: Path) -> None:
    arm(tmp_path, "a", Fault(place=DECIDE, action=Action.KILL))
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos" / "gen")])
    results = [
        subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
        )
        for _ in range(2)
    ]
    assert [done.returncode for done in results] == [-signal.SIGKILL, 0]
    assert results[1].stdout.endswith("lives\n")


@pytest.mark.parametrize(
    ("place", "action", "ms"),
    [
        (Place.INSURED_DECIDE_BEFORE, Action.LOSE_ANSWER, 0),
        (Place.INSURED_DECIDE_BEFORE, Action.DUPLICATE, 0),
        (Place.RELAY_NATION_AFTER, Action.LATE, 0),
        (Place.GATEWAY_ANSWER_BEFORE, Action.DUPLICATE, 0),
        (DECIDE, Action.DELAY, 60_001),
    ],
)
def test_what_makes_no_sense_is_refused(place: Place, action: Action, ms: int) -> None:
    with pytest.raises(FailpointError):
        Fault(place=place, action=action, ms=ms)


SITE = """
{production}
failpoints_folder = "/nowhere"
[site]
code = "440000"
name = "广东"
[nation]
edge = "127.0.0.1:1"
[database]
host = "127.0.0.1"
name = "y440000"
password = "x"
[tls]
directory = "/nowhere"
"""


def settings(folder: Path, production: str) -> Settings:
    file = folder / "site.toml"
    file.write_text(SITE.format(production=production), encoding="utf-8")
    return load_settings(file, {})


def test_production_refuses_failpoints(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="failpoints_folder"):
        settings(tmp_path, "production = true")
    assert isinstance(failpoints_of(settings(tmp_path, "")), FolderFailpoints)


def test_the_document_names_every_place() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    for place in Place:
        assert f"| `{place}` | {place.proves} |" in text
