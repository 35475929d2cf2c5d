"""A small model of what institutions may be told, and a Hypothesis machine that holds a network of
real processes to it while answers are lost, doubled, late or refused at any place.

The model knows of each request which ends are still possible, so an answer is right when it is one
of them: a final state stays with its outcome, a bill has one live settlement, an original one undo.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from real_network import RealNetwork, until
from world import BEIJING, GUANGZHOU, ZHANJIANG, Patient

from infra.cli.verify import verify
from infra.runtime.clock import monotonic_us
from infra.runtime.errors import Refusal
from infra.runtime.failpoints import Action, FailpointError, Fault, Place, arm, disarm
from loadtests.faults.check import check
from loadtests.faults.promises import Promises
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.gateway.v1 import gateway_pb2

EXAMPLES, STEPS = 5, 70
CALL_S, CALM_S = 1.5, 8.0
"""How long a caller waits: little while things break, since a lost row is swept 5 s after it."""
ACTS_WITHIN_S = 0.06
"""A process looks for faults every 50 ms."""
HEALED_S = 15.0
WAYS = {"cross-province": BEIJING, "in-province": GUANGZHOU, "local": ZHANJIANG}
OPEN = ("PENDING", "IN_DOUBT")
ENDS = frozenset({"ABSENT", "COMPLETED", "REJECTED", "ABORTED"})
"""How a request may end; ABSENT: it has claimed nothing."""
TRANSIENT = frozenset(
    {
        "SERVICE_UNAVAILABLE",
        "DATABASE_UNAVAILABLE",
        "SITE_UNREACHABLE",
        "OVERLOADED",
        "DEADLINE_TOO_SHORT",
        "NOT HEARD",
    }
)
"""Refusals that say nothing of a settlement unless they name one."""
KINDS = {
    *(f"settle {way}" for way in WAYS),
    *("settle again", "repeat settle", "repeat undo"),
    *("ask by request", "ask by id", "reverse", "refund", "undo twice"),
    *("cancel", "lose", "lose undo", "rest"),
}
ANSWERS = (
    *("Settle COMPLETED", "Settle OUTCOME_PENDING", "Settle BILL_ALREADY_SETTLED"),
    *("Reverse COMPLETED", "Refund COMPLETED", "Refund ALREADY_UNDONE", "Reverse ALREADY_UNDONE"),
    *("GetSettlement COMPLETED", "GetSettlement ABORTED"),
)
"""Answers that must have been heard: otherwise the model was not put to the test."""
INDEX = st.integers(0, 10**6)
T = TypeVar("T")


def _faults() -> list[tuple[Place, Action]]:
    found: list[tuple[Place, Action]] = []
    for place in Place:
        for action in (Action.RAISE, Action.LOSE_ANSWER, Action.DUPLICATE, Action.LATE):
            try:
                Fault(place=place, action=action, ms=300)
            except FailpointError:
                continue
            if place is not Place.CARE_LEASE_AFTER:  # its rows are left alone for ten seconds
                found.append((place, action))
    return found


@dataclass(frozen=True)
class Told:
    """What a caller was told."""

    reason: str = ""
    """Of a refusal."""
    named: str = ""
    """Its `settlement_id`."""
    undo: str = ""
    """Its `undo_id`."""
    request_id: str = ""
    """Of a refusal: whose the bill is."""
    id: str = ""
    state: str = ""
    header: bytes = b""
    digest: bytes = b""


@dataclass(eq=False)
class Request:
    """A settlement or an undo that was asked for, or that recovery made (`method` empty)."""

    method: str
    message: Any
    bill: int
    of: Request | None = None
    id: str = ""
    ends: frozenset[str] = ENDS
    sent: int = 0
    """How often."""
    closed: bool = False
    """Whether its end was seen; until then it may still be open."""
    doubted: bool = False
    digest: bytes = b""
    reason: str = ""
    total_fen: int = 0
    cancelled: bool = False
    """Whether its reversal was asked for while it may have been open."""
    undo_id: str = ""
    undos: list[Request] = field(default_factory=list)
    freed: bool = False
    """Whether its bill was seen to be another's since."""

    def keep(self, ends: Iterable[str]) -> None:
        """It can only end in one of `ends`."""
        left = self.ends & frozenset(ends)
        assert left, f"{self}: {ends} contradicts {set(self.ends)}"
        self.ends = left

    @property
    def stands(self) -> bool:
        """Whether it is known to be COMPLETED."""
        return self.closed and self.ends == {"COMPLETED"}

    @property
    def may_be_undone(self) -> bool:
        others = any("COMPLETED" in undo.ends for undo in self.undos)
        return self.freed or bool(self.undo_id) or self.cancelled or others

    @property
    def holds(self) -> bool:
        """Whether the bill must be its own."""
        return self.stands and not self.may_be_undone

    @property
    def may_hold(self) -> bool:
        """Whether the bill may be its own."""
        if not self.closed:
            return self.ends != {"ABSENT"}
        undone = self.freed or any(undo.stands for undo in self.undos)
        return "COMPLETED" in self.ends and not undone

    def __repr__(self) -> str:
        return f"{self.method or 'recovery'} {self.id or '?'} of bill {self.bill}"


class Model:
    """Every request made so far, and what is known of it."""

    def __init__(self) -> None:
        self.bills: list[list[Request]] = []
        self.undos: list[Request] = []
        self.by_id: dict[str, Request] = {}

    @property
    def settles(self) -> list[Request]:
        return [one for bill in self.bills for one in bill]

    @property
    def named(self) -> list[Request]:
        """Settlements whose id the institution has heard."""
        return [one for one in self.settles if one.id]

    def begin(self, one: Request) -> None:
        """It is sent (again): what was not there may be made now."""
        one.sent += 1
        if not one.closed and "ABSENT" in one.ends:
            one.ends = ENDS
        if one.of is not None and one.method == "Reverse" and not one.of.closed:
            one.of.cancelled = True

    def settled(self, one: Request, told: Told, *, calm: bool) -> None:
        """The answer to Settle."""
        others = [other for other in self.bills[one.bill] if other is not one]
        if calm and one.sent == 1 and not any(other.may_hold for other in others):
            assert told.reason == "", f"{one}: nothing stands in the way, and {told}"
        if calm and one.closed:
            assert (told.reason == "") == one.stands, f"{one}: {set(one.ends)}, and {told}"
        # Whose id was never heard cannot have been undone: if it is there, the bill is its own.
        holds = not one.id and told.reason in ("", "OUTCOME_PENDING")
        if told.reason in ("BILL_ALREADY_SETTLED", "BILL_ALREADY_SETTLING"):
            [holder] = [o for o in others if o.message.request_id == told.request_id]
            assert holder.may_hold, f"{one}: {told}, which is over"
            self._bind(holder, told.named)
            if told.reason == "BILL_ALREADY_SETTLED":
                self.close(holder, "COMPLETED")
            else:
                assert not holder.closed, f"{holder}: was closed, and {told}"
                holder.keep(ENDS - {"ABSENT"})
            one.keep({"ABSENT"})
            self._free(other for other in others if other is not holder)
        elif self._own(one, told, calm=calm) and holds:
            self._free(others)

    def undone(self, one: Request, told: Told, *, calm: bool) -> None:
        """The answer to Reverse or Refund."""
        original = one.of
        assert original is not None
        by_recovery = original.cancelled and one.method == "Reverse"
        if calm and original.holds and not one.closed:
            assert told.reason == "", f"{original}: stands, is not undone, and {told}"
        if calm and original.undo_id and not one.closed and not by_recovery:
            assert told.reason == "ALREADY_UNDONE", f"{original}: is undone, and {told}"
        if told.state == "ABORTED":
            assert (told.id, told.header) == ("", b"")
            original.keep({"REJECTED", "ABORTED"})
            original.closed = True
        elif told.reason == "ALREADY_UNDONE":
            self.close(original, "COMPLETED")
            self._undo(original, told.undo)
            if told.undo not in self.by_id:
                self._bind(self._of_recovery(original), told.undo)
            undo = self.by_id[told.undo]
            assert undo.of is original, f"{original}: {told}, which undoes another"
            undo.keep({"COMPLETED"})
            if not by_recovery:
                self._own(one, told, calm=False)
        elif by_recovery and told.state == "COMPLETED":
            undo = self.by_id.get(told.id) or self._of_recovery(original)
            assert undo.of is original, f"{original}: {told}, which undoes another"
            self.close(undo, "COMPLETED", told)
        elif told.reason == "OUTCOME_PENDING" and told.named == original.id:
            assert by_recovery or not original.closed, f"{original}: was closed, and {told}"
            original.keep(ENDS - {"ABSENT"})
        elif self._own(one, told, calm=calm):
            self.close(original, "COMPLETED")

    def seen(self, one: Request, told: Told, *, calm: bool) -> None:
        """The answer to GetSettlement."""
        if told.reason == "SETTLEMENT_NOT_FOUND":
            assert "ABSENT" in one.ends, f"{one}: was there, and is not found"
        elif told.reason:
            assert not calm, f"{one}: {told}"
            assert told.reason in TRANSIENT
        elif told.state in OPEN:
            assert not one.closed, f"{one}: was closed, and is {told.state}"
            assert told.state == "IN_DOUBT" or not one.doubted, f"{one}: in doubt, then pending"
            one.doubted = told.state == "IN_DOUBT"
            self._bind(one, told.id)
            one.keep(ENDS - {"ABSENT"})
        else:
            self.close(one, told.state, told)

    def close(self, one: Request, state: str, told: Told = Told()) -> None:
        """Its end was seen: it is for ever, and so are its bytes."""
        self._bind(one, told.id or told.named or one.id)
        one.keep({state})
        one.closed = True
        if state == "COMPLETED" and told.header:
            header = envelope_pb2.OutcomeHeader.FromString(told.header)
            assert header.settlement_id == one.id
            assert one.digest in (b"", told.digest), f"{one}: another outcome"
            one.digest, one.total_fen = told.digest, header.amounts.total_fen
            if one.of is not None:
                assert header.undoes == one.of.id
                assert one.total_fen == -one.of.total_fen or not one.of.total_fen
        if state == "COMPLETED" and one.of is not None:
            self._undo(one.of, one.id)
            self.close(one.of, "COMPLETED")

    def _own(self, one: Request, told: Told, *, calm: bool) -> bool:
        """What an answer says of the request's own row; False when it says nothing."""
        if told.reason == "":
            self.close(one, "COMPLETED", told)
        elif told.reason == "OUTCOME_PENDING":
            assert not one.closed, f"{one}: was closed, and {told}"
            if told.named == one.message.request_id:
                return False  # it joined a call that had no id yet
            self._bind(one, told.named)
            one.keep(ENDS - {"ABSENT"})
        elif told.named:
            aborted = told.reason == "SETTLEMENT_ABORTED"
            assert aborted or told.reason == "ALREADY_UNDONE" or not calm, f"{one}: {told}"
            assert one.reason in ("", told.reason)
            one.reason = told.reason
            self.close(one, "ABORTED" if aborted else "REJECTED", told)
        else:
            assert not calm, f"{one}: {told}"
            assert told.reason in TRANSIENT, f"{one}: {told}"
            return False
        return True

    def _bind(self, one: Request, settlement_id: str) -> None:
        if not settlement_id:
            return
        known = self.by_id.get(settlement_id)
        if known is not None and known is not one and known.method == "" and one.of is known.of:
            # What an ALREADY_UNDONE named was this request's own undo, whose answer was lost.
            one.ends &= known.ends
            one.closed, one.digest = known.closed, known.digest
            known.of.undos.remove(known)  # type: ignore[union-attr]
            self.undos.remove(known)
            known = None
        assert known in (None, one), f"{one}: has the id of {known}"
        assert one.id in ("", settlement_id), f"{one}: has another id now, {settlement_id}"
        one.id = settlement_id
        self.by_id[settlement_id] = one

    def _of_recovery(self, original: Request) -> Request:
        undo = Request("", None, original.bill, of=original)
        original.undos.append(undo)
        self.undos.append(undo)
        return undo

    def _undo(self, original: Request, undo_id: str) -> None:
        assert original.undo_id in ("", undo_id), f"{original}: undone twice, also by {undo_id}"
        original.undo_id = undo_id
        for undo in original.undos:
            if undo.id and undo.id != undo_id:
                undo.keep(ENDS - {"COMPLETED"})

    def _free(self, others: Iterable[Request]) -> None:
        """The bill is another's: these hold it no longer, or never did."""
        for other in others:
            assert not other.holds, f"{other}: stands, and the bill is another's"
            if not other.may_be_undone:
                other.keep(ENDS - {"COMPLETED"})
            elif other.stands:
                other.freed = True


@dataclass
class Driver:
    """The network as the machine's thread uses it, and what all examples together have done."""

    network: RealNetwork
    loop: asyncio.AbstractEventLoop
    patients: Sequence[Patient]
    steps: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    armed: Counter[str] = field(default_factory=Counter)
    faults: count[int] = field(default_factory=count)

    @property
    def folder(self) -> Path:
        return self.network.network.plan.failpoints_folder

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the session's loop, which owns the channels and the processes."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @property
    def acted(self) -> int:
        """How many faults have acted."""
        return len(list(self.folder.glob("model-*.fired.*")))

    async def healed(self) -> None:
        """Return when nothing is open, every cancellation is carried out, and every door opens."""
        statement = """SELECT FROM settlement.care_journal WHERE state IN ('PENDING', 'IN_DOUBT')
            OR state = 'COMPLETED' AND cancel_requested AND next_attempt_at IS NOT NULL LIMIT 1"""

        async def nothing_open() -> bool:
            sites = self.network.clients.provinces
            return not any([await self.network.rows(site, statement) for site in sites])

        await until(nothing_open, within_s=HEALED_S)
        for area in WAYS.values():
            await self.network.answers(self.patients[0], area)

    async def judge(self) -> None:
        """The books of every site agree, as plain SQL and as the sites' own checks see them."""
        databases = {
            site: at.settings.database.admin_login()
            for site, at in self.network.clients.sites.items()
        }
        findings = await check(databases, Promises())
        assert findings.all == []
        verified = await verify(self.network.clients)
        assert verified.ok, verified


_STEPS: list[st.SearchStrategy[tuple[str, dict[str, Any]]]] = []


def step(**drawn: st.SearchStrategy[Any]) -> Callable[[T], T]:
    """A method is a step of the machine, with values of these strategies."""

    def add(method: T) -> T:
        name: str = method.__name__  # type: ignore[attr-defined]
        _STEPS.append(st.tuples(st.just(name), st.fixed_dictionaries(drawn)))
        return method

    return add


class Machine(RuleBasedStateMachine):
    """Institutions at work on the real network, each answer held against the model.

    No rule has a precondition: what can be drawn must not depend on how the network was in time.
    """

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.driver = driver
        self.model = Model()
        self.fault: Path | None = None
        self.changed_us = 0
        """When a fault was last armed or disarmed."""
        self.calm = False
        self.day = driver.network.today
        self.rest()

    @step(patient=INDEX)
    def settle(self, patient: int) -> None:
        """A new bill over each way."""
        for way in WAYS:
            self._step(f"settle {way}")
            self._settle(self._new(way, patient))

    @step(index=INDEX)
    def settle_again(self, index: int) -> None:
        """A bill under a new request id."""
        if one := self._some(self.model.settles, index):
            self._step("settle again")
            self._settle(self._another(one))

    @step(index=INDEX)
    def repeat(self, index: int) -> None:
        """An old request to settle, and one to undo."""
        if one := self._some(self.model.settles, index):
            self._step("repeat settle")
            self._settle(one)
        if one := self._some([one for one in self.model.undos if one.method], index):
            self._step("repeat undo")
            self._undo([one])

    @step(index=INDEX)
    def ask_by_request(self, index: int) -> None:
        if one := self._some(self.model.settles, index):
            self._step("ask by request")
            self._ask(one, by_id=False)

    @step(index=INDEX)
    def ask_by_id(self, index: int) -> None:
        known = [one for one in [*self.model.settles, *self.model.undos] if one.id]
        if one := self._some(known, index):
            self._step("ask by id")
            self._ask(one, by_id=True)

    @step(index=INDEX)
    def reverse(self, index: int) -> None:
        if one := self._some(self.model.named, index):
            self._step("reverse")
            self._undo([self._undo_of(one, "Reverse")])

    @step(index=INDEX)
    def refund(self, index: int) -> None:
        if one := self._some(self.model.named, index):
            self._step("refund")
            self._undo([self._undo_of(one, "Refund")])

    @step(index=INDEX, methods=st.sampled_from([("Reverse", "Refund"), ("Refund", "Refund")]))
    def undo_twice(self, index: int, methods: tuple[str, str]) -> None:
        """Two at once."""
        if one := self._some(self.model.named, index):
            self._step("undo twice")
            self._undo([self._undo_of(one, method) for method in methods])

    @step(way=st.sampled_from(sorted(WAYS)), patient=INDEX, ms=st.sampled_from([0, 3, 10, 25]))
    def cancel(self, way: str, patient: int, ms: int) -> None:
        """The caller hangs up early."""
        self._step("cancel")
        one = self._new(way, patient)
        self.model.begin(one)
        told = self.driver.run(self._call(one, "Settle", one.message, hang_up_s=ms / 1000))
        self.model.settled(one, told, calm=False)

    @step(fault=st.sampled_from(_faults()), way=st.sampled_from(sorted(WAYS)), patient=INDEX)
    def lose(self, fault: tuple[Place, Action], way: str, patient: int) -> None:
        """A fault hits the settlement of a new bill, or whoever reaches its place after it."""
        self._step("lose")
        self._arm(*fault)
        self._settle(self._new(way, patient))

    @step(
        fault=st.sampled_from(_faults()),
        index=INDEX,
        method=st.sampled_from(["Reverse", "Refund"]),
    )
    def lose_undo(self, fault: tuple[Place, Action], index: int, method: str) -> None:
        """The same for an undo."""
        if one := self._some(self.model.named, index):
            self._step("lose undo")
            self._arm(*fault)
            self._undo([self._undo_of(one, method)])

    def _arm(self, place: Place, action: Action) -> None:
        self.driver.armed[action] += 1
        self._disarm()
        name = f"model-{next(self.driver.faults):04}"
        self.fault = arm(self.driver.folder, name, Fault(place=place, action=action, ms=300))
        self.changed_us = monotonic_us()
        self.calm = False
        self.driver.run(self._noticed())

    @step()
    def rest(self) -> None:
        """Nothing is broken any more, and nothing is open: every request has its end."""
        if self.calm and all(one.closed for one in [*self.model.settles, *self.model.undos]):
            return
        self._step("rest")
        self._disarm()
        self.driver.run(self._noticed())
        for one in self.model.settles:
            if not one.closed and "ABSENT" in one.ends:
                self._settle(one)  # as the contract tells callers who do not know
        self.driver.run(self.driver.healed())
        for one in [*self.model.settles, *self.model.undos]:
            if one.id and not one.closed:
                self._ask(one, by_id=True)
                assert one.closed, f"{one}: is open after {HEALED_S} s"
        self.calm = self.driver.network.today == self.day

    # One rule for all: Hypothesis leaves some rules out of each example, and here there are few.
    @rule(drawn=st.one_of(_STEPS))
    def act(self, drawn: tuple[str, dict[str, Any]]) -> None:
        name, values = drawn
        getattr(self, name)(**values)

    @invariant()
    def one_live_settlement_per_bill(self) -> None:
        for bill in self.model.bills:
            assert sum(one.holds for one in bill) <= 1, bill

    def teardown(self) -> None:
        """Everything has its end, and the books of all sites agree."""
        self.rest()
        for one in self.model.settles:
            self._ask(one, by_id=False)
        self.one_live_settlement_per_bill()
        self.driver.run(self.driver.judge())

    def _step(self, name: str) -> None:
        self.driver.steps[name] += 1

    @staticmethod
    def _some(requests: Sequence[Request], index: int) -> Request | None:
        return requests[index % len(requests)] if requests else None

    def _new(self, way: str, patient: int) -> Request:
        who = self.driver.patients[patient % len(self.driver.patients)]
        message = self.driver.network.request(who, care_area=WAYS[way])
        one = Request("Settle", message, len(self.model.bills))
        self.model.bills.append([one])
        return one

    def _another(self, one: Request) -> Request:
        message = gateway_pb2.SettleRequest()
        message.CopyFrom(one.message)
        message.request_id = f"req-{uuid4()}"
        another = Request("Settle", message, one.bill)
        self.model.bills[one.bill].append(another)
        return another

    def _undo_of(self, original: Request, method: str) -> Request:
        kind = gateway_pb2.ReverseRequest if method == "Reverse" else gateway_pb2.RefundRequest
        message = kind(request_id=f"undo-{uuid4()}", settlement_id=original.id)
        undo = Request(method, message, original.bill, of=original)
        original.undos.append(undo)
        self.model.undos.append(undo)
        return undo

    def _settle(self, one: Request) -> None:
        self.model.begin(one)
        told = self.driver.run(self._call(one, "Settle", one.message))
        self.model.settled(one, told, calm=self.calm)

    def _undo(self, wanted: Sequence[Request]) -> None:
        calm = self.calm and len(wanted) == 1
        for one in wanted:
            self.model.begin(one)

        async def all_of_them() -> list[Told]:
            return await asyncio.gather(*(self._call(u, u.method, u.message) for u in wanted))

        told = zip(wanted, self.driver.run(all_of_them()), strict=True)
        # Of answers to calls at once, what was open was so before what became of it.
        for one, answer in sorted(told, key=lambda pair: pair[1].reason != "OUTCOME_PENDING"):
            self.model.undone(one, answer, calm=calm)

    def _ask(self, one: Request, *, by_id: bool) -> None:
        if by_id:
            message = gateway_pb2.GetSettlementRequest(settlement_id=one.id)
        else:
            message = gateway_pb2.GetSettlementRequest(request_id=one.message.request_id)
        told = self.driver.run(self._call(one, "GetSettlement", message))
        self.model.seen(one, told, calm=self.calm)

    async def _call(
        self, one: Request, method: str, message: Any, *, hang_up_s: float | None = None
    ) -> Told:
        bill = self.model.bills[one.bill][0].message.bill
        door = self.driver.network.door(bill.visit.care_area, bill.reference.institution)
        call = getattr(door, method)(message, timeout=CALM_S if self.calm else CALL_S)
        try:
            async with asyncio.timeout(hang_up_s):
                answer = await call
        except TimeoutError:
            told = Told("NOT HEARD")
        except Refusal as refusal:
            details = refusal.details
            told = Told(
                refusal.name,
                details.get("settlement_id", ""),
                details.get("undo_id", ""),
                details.get("request_id", ""),
            )
        else:
            state = types_pb2.SettlementState.Name(answer.state)
            told = Told(
                id=answer.settlement_id,
                state=state.removeprefix("SETTLEMENT_STATE_"),
                header=answer.result.outcome_header,
                digest=answer.result.outcome_digest,
            )
        self.driver.told[f"{method} {told.reason or told.state}"] += 1
        return told

    def _disarm(self) -> None:
        # The file alone: its token stays, so that a process that knows it cannot act again.
        if self.fault is not None:
            self.fault.unlink()
            self.fault = None
            self.changed_us = monotonic_us()

    async def _noticed(self) -> None:
        """Return when every process that reaches a place knows what is armed."""

        async def over() -> bool:
            return monotonic_us() - self.changed_us > ACTS_WITHIN_S * 1e6

        await until(over, within_s=30)


@pytest.mark.timeout(300)
async def test_the_processes_keep_their_word_for_hundreds_of_steps(
    breakable: RealNetwork,
) -> None:
    """PROTOCOL §1, §2 and §6 as an institution sees them, whatever is lost on the way."""
    driver = Driver(breakable, asyncio.get_running_loop(), await breakable.patients(4))
    disarm(driver.folder)
    try:
        await asyncio.to_thread(
            run_state_machine_as_test,
            lambda: Machine(driver),  # type: ignore[arg-type]  # anything that makes one will do
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                # Nothing is tried again or made smaller: the network remembers.
                phases=[Phase.generate],
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        acted = driver.acted
    finally:
        disarm(driver.folder)
    assert driver.steps.total() >= 300, driver.steps
    assert set(driver.steps) == KINDS, driver.steps
    assert min(driver.steps.values()) >= 3, driver.steps
    assert acted >= 10, f"{acted} of {driver.armed} acted"
    assert set(driver.armed) == {
        Action.RAISE,
        Action.LOSE_ANSWER,
        Action.DUPLICATE,
        Action.LATE,
    }, driver.armed
    for answer in ANSWERS:
        assert driver.told[answer], f"nobody was told {answer}: {driver.told}"
