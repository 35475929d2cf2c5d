"""The plan of faults is a pure function of its seed, and soon meets everything."""

from __future__ import annotations

from infra.runtime.failpoints import Action, Place
from loadtests.faults.plan import AFTER_DOUBT, TRAFFIC_MS, Parts, make_plan

PARTS = Parts(
    processes=("100000-0", "110000-0", "440000-0", "440000-1"),
    links=("110000-100000", "100000-110000"),
    databases=("100000", "110000", "440000"),
    sites=("100000", "110000", "440000"),
)


def test_the_same_seed_gives_the_same_plan() -> None:
    assert make_plan(7, 20, PARTS) == make_plan(7, 20, PARTS)


def test_another_seed_gives_another_plan() -> None:
    assert len({make_plan(seed, 3, PARTS) for seed in range(50)}) == 50


def test_a_longer_plan_begins_with_the_shorter_one() -> None:
    assert make_plan(3, 30, PARTS)[:10] == make_plan(3, 10, PARTS)


def test_steps_are_ordered_and_leave_time_to_act() -> None:
    for one in make_plan(5, 100, PARTS):
        times = [step.at_ms for step in one.steps]
        assert times == sorted(times)
        assert all(0 < at_ms < TRAFFIC_MS for at_ms in times)


def test_steps_name_parts_of_the_network() -> None:
    known = {
        "kill": PARTS.processes,
        "freeze": PARTS.processes,
        "link": PARTS.links,
        "database": PARTS.databases,
        "failpoint": ("",),
    }
    for one in make_plan(11, 200, PARTS):
        for step in one.steps:
            assert step.target in known[step.kind]
            assert (step.fault is not None) == (step.kind == "failpoint")


def test_three_rounds_meet_every_kind_and_eight_every_place() -> None:
    for seed in range(20):
        short = {step.kind for one in make_plan(seed, 3, PARTS) for step in one.steps}
        assert short == {"kill", "freeze", "link", "database", "failpoint"}
        long = [step.fault for one in make_plan(seed, 8, PARTS) for step in one.steps]
        assert {fault.place for fault in long if fault is not None} == set(Place)


def test_what_only_doubt_leads_to_comes_with_lost_answers() -> None:
    for one in make_plan(13, 30, PARTS):
        faults = [step.fault for step in one.steps if step.fault is not None]
        lost = {fault.place for fault in faults if fault.action is Action.LOSE_ANSWER}
        if AFTER_DOUBT & {fault.place for fault in faults}:
            assert lost >= {Place.GATEWAY_RELAY_AFTER, Place.GATEWAY_INSURED_AFTER}
