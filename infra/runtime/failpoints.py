"""Named places where a test makes a process fail: before and after every durable write and hop.

Off unless `failpoints_folder` is set, and refused in production mode. A fault is armed, also in a
running process, by a small TOML file in that folder (see `arm`); the folder is looked at when a
place is reached, at most every 50 ms. A fault with a bound (`times`) takes a token, a file made
exclusively, before it acts: so it is bounded over all processes, also when it kills its own.
Without a folder a place costs one call that does nothing, and nothing here is reached by a path.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tomllib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from infra.runtime.clock import monotonic_us
from infra.runtime.config import Settings
from infra.runtime.errors import Reason, Refusal

_log = structlog.get_logger("yidi.failpoints")
_LOOK_US = 50_000
MAX_DELAY_MS = 60_000


class Place(StrEnum):
    """Every place that can fail; `proves` says which line of the protocol's table it stands for.

    A write has `.before` and `.after`, a hop as well; at a hop `.before` is the sender's side
    before anything leaves, `.after` the sender's side when the answer has come.
    """

    proves: str

    def __new__(cls, name: str, proves: str) -> Place:
        place = str.__new__(cls, name)
        place._value_ = name
        place.proves = proves
        return place

    CARE_OPEN_BEFORE = (
        "care.open.before",
        "1: before PENDING is durable nothing exists anywhere, and the caller may try again",
    )
    CARE_OPEN_AFTER = (
        "care.open.after",
        "2: PENDING is durable and nothing was sent: swept into doubt, made ABORTED",
    )
    GATEWAY_RELAY_BEFORE = (
        "gateway.relay.before",
        "2: the front door dies before the envelope leaves its process",
    )
    GATEWAY_RELAY_AFTER = (
        "gateway.relay.after",
        "8: the outcome stands everywhere beyond, and the care place has not heard of it",
    )
    RELAY_NATION_BEFORE = (
        "relay.nation.before",
        "2: the care relay holds the envelope and has not sent it on",
    )
    RELAY_NATION_AFTER = (
        "relay.nation.after",
        "8: the nation has journaled, and the answer is lost at the care relay",
    )
    NATION_RELAY_BEFORE = (
        "nation.relay.before",
        "3: the envelope is at the nation and was not forwarded",
    )
    NATION_RELAY_AFTER = (
        "nation.relay.after",
        "6: decided, and the answer is lost before the nation has journaled it",
    )
    RELAY_INSURED_BEFORE = (
        "relay.insured.before",
        "4: the envelope is at the insured site and nothing is decided",
    )
    RELAY_INSURED_AFTER = (
        "relay.insured.after",
        "6: decided, and the answer is lost inside the insured site",
    )
    GATEWAY_INSURED_BEFORE = (
        "gateway.insured.before",
        "2, LOCAL and IN_PROVINCE: PENDING is durable and nothing was sent",
    )
    GATEWAY_INSURED_AFTER = (
        "gateway.insured.after",
        "6, LOCAL and IN_PROVINCE: decided, and the answer is lost",
    )
    INSURED_DECIDE_BEFORE = (
        "insured.decide.before",
        "4, 5: ABORT leaves a tombstone, and a commit that comes later returns it",
    )
    INSURED_DECIDE_AFTER = (
        "insured.decide.after",
        "5, 6: the row is durable and nobody knows: ABORT returns the row",
    )
    INSURED_ABORT_BEFORE = (
        "insured.abort.before",
        "5: recovery's question is lost: it is asked again and nothing has changed",
    )
    INSURED_ABORT_AFTER = (
        "insured.abort.after",
        "5: the tombstone is durable and its answer lost: asking again returns the same row",
    )
    NATION_RECORD_BEFORE = (
        "nation.record.before",
        "7: decided, not journaled at the nation: not passed on as committed",
    )
    NATION_RECORD_AFTER = (
        "nation.record.after",
        "7: journaled, and the answer lost: recovery inserts or compares the same bytes",
    )
    CARE_CLOSE_BEFORE = (
        "care.close.before",
        "8, 10: the care place dies before COMPLETED, or a recoverer closes the row first",
    )
    CARE_CLOSE_AFTER = (
        "care.close.after",
        "9: COMPLETED is durable and the front door does not hear of it",
    )
    CARE_LEASE_AFTER = (
        "care.lease.after",
        "10: a recoverer dies with leased rows: another one asks when the lease is over",
    )
    CARE_LINK_AFTER = (
        "care.link.after",
        "11: the id of an undo is on the original and the undo was never opened",
    )
    GATEWAY_ANSWER_BEFORE = (
        "gateway.answer.before",
        "9: COMPLETED, and the institution is not answered: the same request id gets the answer",
    )

    @property
    def is_write(self) -> bool:
        """Whether it stands beside a durable write; otherwise beside a hop or an answer."""
        return str(self).split(".")[0] in ("care", "insured") or self.startswith("nation.record")

    @property
    def is_sending(self) -> bool:
        """Whether items are about to leave here, so that they may leave twice or late."""
        return self.endswith(".before") and f"{str(self).removesuffix('.before')}.after" in {
            str(place) for place in Place if not place.is_write
        }


class Action(StrEnum):
    """What happens at a place."""

    RAISE = "raise"
    """The write or the call fails before it is begun (or, at `.after`, when it is done)."""
    DELAY = "delay"
    """Waits `ms`."""
    KILL = "kill"
    """SIGKILL to the own process."""
    LOSE_ANSWER = "lose_answer"
    """`.after` only: what was done is done, and the caller sees a lost connection."""
    DUPLICATE = "duplicate"
    """Hops, `.before` only: the matching items are sent twice, one sending after the other."""
    LATE = "late"
    """Hops, `.before` only: the matching items are sent `ms` later, when nobody waits any more."""


class FailpointError(ValueError):
    """A fault that cannot be armed; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What shall happen where, how often and to whom."""

    place: Place
    action: Action
    times: int = 1
    """How often in all, over all processes; 0: always."""
    ms: int = 0
    match: str = ""
    """Only items whose id begins so; empty: all."""
    site: str = ""
    """Only processes of this site; empty: all."""

    def __post_init__(self) -> None:
        if self.action is Action.LOSE_ANSWER and not self.place.endswith(".after"):
            raise FailpointError(f"{self.place}: an answer is lost at `.after` places only")
        if self.action in (Action.DUPLICATE, Action.LATE) and not self.place.is_sending:
            raise FailpointError(f"{self.place}: {self.action} needs the `.before` of a hop")
        if not 0 <= self.ms <= MAX_DELAY_MS:
            raise FailpointError(f"ms={self.ms}: must be from 0 to {MAX_DELAY_MS}")
        if self.times < 0:
            raise FailpointError(f"times={self.times}: must not be negative")


def arm(folder: Path, name: str, fault: Fault) -> Path:
    """Arm `fault` in every process that looks into `folder`; `name` tells faults apart."""
    lines = [f'place = "{fault.place}"', f'action = "{fault.action}"', f"times = {fault.times}"]
    lines += [f"ms = {fault.ms}", f'match = "{fault.match}"', f'site = "{fault.site}"', ""]
    path = folder / f"{name}.toml"
    new = folder / f".{name}.new"
    new.write_text("\n".join(lines), encoding="utf-8")
    new.replace(path)
    return path


def disarm(folder: Path) -> int:
    """Disarm everything in `folder`; return how often its bounded faults have acted."""
    for path in folder.glob("*.toml"):
        path.unlink()
    tokens = list(folder.glob("*.fired.*"))
    for token in tokens:
        token.unlink()
    return len(tokens)


T = TypeVar("T")
R = TypeVar("R")


class _WithId(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_WithId)
Result = TypeVar("Result", bound=_WithId)


class Failpoints(Protocol):
    """What the code that can be made to fail is given."""

    async def at(self, place: Place, ids: Iterable[str] = ()) -> None:
        """Reach a place with the settlements `ids`; raises `Refusal`, waits, or never returns."""
        ...

    async def hop(
        self,
        before: Place,
        after: Place,
        items: Sequence[Item],
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
    ) -> Sequence[Result]:
        """Send items over a hop with its two places; items may then leave twice or late."""
        ...


class NullFailpoints:
    """Nothing ever fails here."""

    async def at(self, place: Place, ids: Iterable[str] = ()) -> None:
        return None

    async def hop(
        self,
        before: Place,
        after: Place,
        items: Sequence[Item],
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
    ) -> Sequence[Result]:
        return await send(items)


class FolderFailpoints:
    """Faults armed by the files of a folder."""

    def __init__(self, folder: Path, *, site: str) -> None:
        self._folder = folder
        self._site = site
        self._looked_us = -_LOOK_US
        self._armed: dict[str, tuple[int, Fault | None]] = {}
        """File name → its time stamp, and the fault when it is one for this site."""
        self._late: set[asyncio.Task[None]] = set()

    async def at(self, place: Place, ids: Iterable[str] = ()) -> None:
        """Do what is armed for the place, if it matches one of `ids`."""
        for name, fault in self._faults(place):
            if fault.action in (Action.DUPLICATE, Action.LATE):
                continue
            if fault.match and not any(one.startswith(fault.match) for one in ids):
                continue
            if self._take(name, fault):
                await self._act(place, fault)

    async def hop(
        self,
        before: Place,
        after: Place,
        items: Sequence[Item],
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
    ) -> Sequence[Result]:
        """Send the items; those of an armed fault twice, or later and unheard."""
        ids = [item.id for item in items]
        await self.at(before, ids)
        twice: list[Item] = []
        now = list(items)
        for name, fault in self._faults(before):
            hit = [item for item in now if item.id.startswith(fault.match)]
            if fault.action not in (Action.DUPLICATE, Action.LATE) or not hit:
                continue
            if not self._take(name, fault):
                continue
            _log.warning("failpoint", place=before, action=fault.action, items=len(hit))
            if fault.action is Action.DUPLICATE:
                twice += hit
            else:
                now = [item for item in now if not item.id.startswith(fault.match)]
                task = asyncio.get_running_loop().create_task(_later(fault.ms, hit, send))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
        results = await send(now) if now else []
        if twice:
            again = {result.id: result for result in await send(twice)}
            results = [again.pop(result.id, result) for result in results] + list(again.values())
        await self.at(after, ids)
        return results

    def _faults(self, place: Place) -> list[tuple[str, Fault]]:
        now_us = monotonic_us()
        if now_us - self._looked_us >= _LOOK_US:
            self._looked_us = now_us
            self._look()
        return [
            (name, fault)
            for name, (_, fault) in self._armed.items()
            if fault is not None and fault.place is place
        ]

    def _look(self) -> None:
        found: dict[str, tuple[int, Fault | None]] = {}
        try:
            entries = [entry for entry in os.scandir(self._folder) if entry.name.endswith(".toml")]
        except FileNotFoundError:
            entries = []
        for entry in sorted(entries, key=lambda one: one.name):
            try:
                stamp = entry.stat().st_mtime_ns
                known = self._armed.get(entry.name)
                found[entry.name] = (
                    known if known is not None and known[0] == stamp else (stamp, self._read(entry))
                )
            except FileNotFoundError:
                continue  # disarmed this moment
        self._armed = found

    def _read(self, entry: os.DirEntry[str]) -> Fault | None:
        with open(entry, "rb") as file:
            data = tomllib.load(file)
        fault = Fault(
            place=Place[str(data.pop("place")).upper().replace(".", "_")],
            action=Action(data.pop("action")),
            **data,
        )
        return fault if fault.site in ("", self._site) else None

    def _take(self, name: str, fault: Fault) -> bool:
        """Take one of the fault's tokens; False when it has acted often enough."""
        for number in range(fault.times):
            token = self._folder / f"{name.removesuffix('.toml')}.fired.{number}"
            try:
                os.close(os.open(token, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                continue
            return True
        return fault.times == 0

    async def _act(self, place: Place, fault: Fault) -> None:
        _log.warning("failpoint", place=place, action=fault.action)
        if fault.action is Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.action is Action.DELAY:
            await asyncio.sleep(fault.ms / 1000)
        elif place.is_write:
            raise Refusal(Reason.ERROR_REASON_DATABASE_UNAVAILABLE, cause=f"failpoint {place}")
        else:
            raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service=place, cause="failpoint")


async def _later(
    ms: int, items: Sequence[Item], send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]
) -> None:
    await asyncio.sleep(ms / 1000)
    try:
        await send(items)
    except Refusal as refusal:
        _log.info("late items refused", reason=refusal.name)


def around(
    failpoints: Failpoints,
    before: Place,
    after: Place,
    send: Callable[[Sequence[Item], float], Awaitable[Sequence[Result]]],
) -> Callable[[Sequence[Item], float], Awaitable[Sequence[Result]]]:
    """`send`, which takes items and a deadline in seconds, as a hop with its two places."""

    async def sending(items: Sequence[Item], seconds: float) -> Sequence[Result]:
        return await failpoints.hop(before, after, items, lambda part: send(part, seconds))

    return sending


def failpoints_of(settings: Settings) -> Failpoints:
    """What the settings say: nothing fails without a folder."""
    if settings.failpoints_folder is None:
        return NullFailpoints()
    return FolderFailpoints(settings.failpoints_folder, site=settings.site.code)
