"""What breaks when: a pure function of the seed, the rounds and the network's parts.

Each round breaks a few things while traffic runs, then everything is healed. The first rounds go
through the kinds of fault in turn, so that a few rounds already meet each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Any

from infra.runtime.failpoints import Action, Fault, Place

TRAFFIC_MS = 3_000
"""How long traffic runs in a round before everything is healed."""
_DELAYS_MS = (40, 400, 2_500, 7_000)
"""Short, noticeable, longer than a call inside a site, longer than a settlement may take."""
_KINDS = ("kill", "failpoint", "link", "database", "failpoint", "freeze")
_LINK_MODES = ("blackhole", "drop", "reset", "delay")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a network has that can break."""

    processes: tuple[str, ...]
    links: tuple[str, ...]
    databases: tuple[str, ...]
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One fault, `at_ms` after the round's traffic began."""

    at_ms: int
    kind: str
    """kill, freeze (SIGSTOP), database, link, failpoint."""
    target: str
    """The process, site or link; for a failpoint the site whose processes fail, or empty."""
    mode: str = ""
    """For a link."""
    ms: int = 0
    fault: Fault | None = None
    """For a failpoint."""

    def facts(self) -> dict[str, Any]:
        """The step for programs."""
        facts: dict[str, Any] = {"at_ms": self.at_ms, "kind": self.kind, "target": self.target}
        if self.mode:
            facts |= {"mode": self.mode, "ms": self.ms}
        if self.fault is not None:
            fault = self.fault
            facts |= {"place": str(fault.place), "action": str(fault.action), "times": fault.times}
            facts["ms"] = fault.ms
        return facts


@dataclass(frozen=True, slots=True)
class Round:
    """The faults of one round in order of time."""

    number: int
    traffic_seed: int
    steps: tuple[Step, ...]


def make_plan(seed: int, rounds: int, parts: Parts) -> tuple[Round, ...]:
    """The plan of `rounds` rounds; the first rounds of a longer plan are the same."""
    random = Random(seed)
    places = list(Place)
    random.shuffle(places)
    # Places go round in an order of their own: a long plan meets all of them.
    turns = cycle(places)
    return tuple(_round(number, random, parts, turns) for number in range(rounds))


def _round(number: int, random: Random, parts: Parts, turns: Iterator[Place]) -> Round:
    steps = []
    count = random.randint(2, 4)
    for index in range(count):
        kind = _KINDS[(number * 2 + index) % len(_KINDS)]
        at_ms = random.randrange(200, TRAFFIC_MS - 500)
        steps.append(_step(kind, at_ms, random, parts, turns))
    ordered = tuple(sorted(steps, key=lambda step: step.at_ms))
    return Round(number, random.randrange(1 << 31), ordered)


def _step(kind: str, at_ms: int, random: Random, parts: Parts, turns: Iterator[Place]) -> Step:
    if kind in ("kill", "freeze"):
        return Step(at_ms, kind, random.choice(parts.processes))
    if kind == "database":
        return Step(at_ms, kind, random.choice(parts.databases))
    if kind == "link":
        mode = random.choice(_LINK_MODES)
        ms = random.choice(_DELAYS_MS) if mode == "delay" else 0
        return Step(at_ms, kind, random.choice(parts.links), mode=mode, ms=ms)
    fault = _fault(random, next(turns))
    return Step(at_ms, kind, fault.site, fault=fault)


def _fault(random: Random, place: Place) -> Fault:
    actions = [Action.KILL, Action.RAISE, Action.DELAY]
    if place.endswith(".after"):
        actions.append(Action.LOSE_ANSWER)
    if place.is_sending:
        actions += [Action.DUPLICATE, Action.LATE]
    action = random.choice(actions)
    ms = random.choice(_DELAYS_MS) if action in (Action.DELAY, Action.LATE) else 0
    # A process that is killed starts again at once: more than one death is not one more case.
    times = 1 if action is Action.KILL else random.choice((1, 3, 10))
    return Fault(place=place, action=action, times=times, ms=ms)
