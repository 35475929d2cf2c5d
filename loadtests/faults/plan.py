"""What breaks when: a pure function of the seed, the rounds and the network's parts.

Each round arms three failpoints and breaks one or two other things while traffic runs, then
everything is healed. Kinds of fault and places go round, so that three rounds meet each kind and
eight rounds arm each place. A place that only doubt leads to is armed together with lost answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Any

from infra.runtime.failpoints import Action, Fault, Place

TRAFFIC_MS = 4_000
"""How long traffic runs in a round before everything is healed."""
_DELAYS_MS = (40, 400, 2_500, 7_000)
"""Short, noticeable, longer than a call inside a site, longer than a settlement may take."""
_KINDS = ("kill", "link", "database", "freeze")
_PLACES_IN_ROUND = 3
AFTER_DOUBT = frozenset(
    (
        Place.CARE_LEASE_AFTER,
        Place.CARE_LINK_AFTER,
        Place.INSURED_ABORT_BEFORE,
        Place.INSURED_ABORT_AFTER,
    )
)
"""Places that only recovery reaches."""
_RECOVERY_MS = 2_500
"""By then recovery has got there."""
_DOUBT = (Place.GATEWAY_RELAY_AFTER, Place.GATEWAY_INSURED_AFTER)
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
    turns, kinds = cycle(places), cycle(random.sample(_KINDS, len(_KINDS)))
    return tuple(_round(number, random, parts, turns, kinds) for number in range(rounds))


def _round(
    number: int, random: Random, parts: Parts, turns: Iterator[Place], kinds: Iterator[str]
) -> Round:
    steps, earliest_ms = [], 800
    for _ in range(_PLACES_IN_ROUND):
        place = next(turns)
        # Early, so that traffic gets there before it has nowhere to go.
        at_ms = random.randrange(100, 600 if place in AFTER_DOUBT else 1_500)
        steps.append(_arming(at_ms, _fault(random, place)))
        if place in AFTER_DOUBT:
            lost = (Fault(place=one, action=Action.LOSE_ANSWER, times=2) for one in _DOUBT)
            steps += [_arming(at_ms, fault) for fault in lost]
            earliest_ms = _RECOVERY_MS
    for _ in range(1 + number % 2):
        at_ms = random.randrange(earliest_ms, TRAFFIC_MS - 300)
        steps.append(_step(next(kinds), at_ms, random, parts))
    ordered = tuple(sorted(steps, key=lambda step: step.at_ms))
    return Round(number, random.randrange(1 << 31), ordered)


def _arming(at_ms: int, fault: Fault) -> Step:
    return Step(at_ms, "failpoint", fault.site, fault=fault)


def _step(kind: str, at_ms: int, random: Random, parts: Parts) -> Step:
    if kind in ("kill", "freeze"):
        return Step(at_ms, kind, random.choice(parts.processes))
    if kind == "database":
        return Step(at_ms, kind, random.choice(parts.databases))
    mode = random.choice(_LINK_MODES)
    ms = random.choice(_DELAYS_MS) if mode == "delay" else 0
    return Step(at_ms, kind, random.choice(parts.links), mode=mode, ms=ms)


def _fault(random: Random, place: Place) -> Fault:
    actions = [Action.KILL, Action.RAISE, Action.DELAY]
    if place.endswith(".after"):
        actions.append(Action.LOSE_ANSWER)
    if place.is_sending:
        actions += [Action.DUPLICATE, Action.LATE]
    action = random.choice(actions)
    ms = random.choice(_DELAYS_MS) if action in (Action.DELAY, Action.LATE) else 0
    # A process that is killed starts again at once: more than one death is not one more case.
    # One that holds callers for long is rare, or nobody is left to meet the other faults.
    times = 1 if action is Action.KILL or ms > _DELAYS_MS[1] else random.choice((1, 3, 10))
    return Fault(place=place, action=action, times=times, ms=ms)
