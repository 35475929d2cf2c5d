"""Changes of filings, each person's decided on all of them and written whole.

| step   | trips | what                                                                    |
|--------|-------|-------------------------------------------------------------------------|
| read   | 1     | each person's version and filings, and what the request ids were used for |
| costs  | 0–1   | settlement: what was paid under the filings to be left                  |
| decide | 0     | by rules, in the order asked                                            |
| write  | 1     | one statement; a person that somebody changed meanwhile is read again   |

Whatever the size of the batch; one person's race or refusal is nobody else's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from infra.runtime.call import Call
from infra.runtime.clock import Clock, instant
from infra.runtime.errors import Reason, Refusal
from services.filing import messages
from services.filing.asking import seconds_left
from services.filing.domain.facts import Filing, FilingState
from services.filing.domain.life import FilingAction, Step
from services.filing.store import (
    Answered,
    Asked,
    Event,
    FilingStore,
    PersonChange,
    Reading,
    Request,
)
from yidi.filing.v1 import desk_pb2
from yidi.settlement.v1 import insured_pb2

ATTEMPTS = 5
"""How often a person is read and decided again before it is PERSON_BUSY."""

Decide = Callable[[Sequence[Filing], bool], Sequence[Step]]
"""All filings of the person, and whether something was paid under the filing to be left → steps,
the last one's filing being the answer; raises `Refusal`."""


class CostsStub(Protocol):
    """What filing asks of settlement."""

    @property
    def BatchHasCosts(self) -> Callable[..., Awaitable[insured_pb2.BatchHasCostsResponse]]:
        """Awaited with the request, `timeout` and `traceparent`; a failure raises `Refusal`."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """One change asked for."""

    id: str
    person_id: str
    caller: str
    """To whom the request id belongs."""
    actor: str
    """Who appears in the history."""
    request_id: str
    digest: bytes
    """Of what is asked, of the person and never of the credential."""
    action: FilingAction
    """What the audit calls it."""
    decide: Decide
    leaves: str = ""
    """The filing that is changed or given up, if one is."""


@dataclass(slots=True)
class _Unit:
    """One person's tasks of a batch: the filings as they become, and what is to be written."""

    person_id: str
    seen: int
    filings: dict[str, Filing]
    stored: frozenset[str]
    touched: dict[str, None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    outcomes: dict[str, desk_pb2.FilingAnswer | Refusal] = field(default_factory=dict)

    def take(self, task: Task, steps: Sequence[Step]) -> None:
        """Go on with what `steps` made, and remember it for writing."""
        for step in steps:
            one = step.filing
            self.filings[one.filing_id] = one
            self.touched[one.filing_id] = None
            self.events.append(
                Event(
                    one.filing_id,
                    one.version,
                    step.action,
                    one.state,
                    step.channel,
                    task.actor,
                    step.cause,
                )
            )
        last = steps[-1].filing
        answer = messages.filing_answer(last)
        # What is taken over comes in masses; its answer is the filing as it stands.
        kept = None if task.action is FilingAction.TAKE_OVER else answer.SerializeToString()
        self.requests.append(
            Request(task.caller, task.request_id, task.digest, last.filing_id, kept, task.action)
        )
        self.outcomes[task.id] = answer

    def change(self) -> PersonChange:
        """Everything to write."""
        return PersonChange(
            person_id=self.person_id,
            seen=self.seen,
            made=[self.filings[one] for one in self.touched if one not in self.stored],
            changed=[self.filings[one] for one in self.touched if one in self.stored],
            events=self.events,
            requests=self.requests,
        )


class Costs:
    """What was paid under filings."""

    def __init__(self, settlement: CostsStub, call_seconds: float) -> None:
        self._settlement = settlement
        self._seconds = call_seconds

    async def of(self, filing_ids: Collection[str], call: Call) -> Mapping[str, bool | Refusal]:
        """Filing id → whether something stands that was paid under it, or why it cannot be said."""
        request = insured_pb2.BatchHasCostsRequest(
            items=[insured_pb2.HasCostsItem(id=one, filing_id=one) for one in filing_ids]
        )
        try:
            answer = await self._settlement.BatchHasCosts(
                request, timeout=seconds_left(self._seconds, call), traceparent=call.traceparent
            )
        except Refusal as refusal:
            return dict.fromkeys(filing_ids, refusal)
        missing = Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="settlement")
        return dict.fromkeys(filing_ids, missing) | {
            one.id: Refusal.from_status(one.error) if one.HasField("error") else one.has_costs
            for one in answer.results
        }


class CarryingOut:
    """Carries out changes; holds no state between them."""

    def __init__(self, *, store: FilingStore, clock: Clock, costs: Costs | None = None) -> None:
        """`costs` may be left out where no task leaves a filing."""
        self._store = store
        self._clock = clock
        self._costs = costs

    async def carry_out(
        self, tasks: Sequence[Task], call: Call
    ) -> dict[str, desk_pb2.FilingAnswer | Refusal]:
        """Task id → the answer, the same for the same request for ever, or why nothing changed."""
        outcomes: dict[str, desk_pb2.FilingAnswer | Refusal] = {}
        left = list(tasks)
        for _ in range(ATTEMPTS):
            if not left:
                return outcomes
            left = await self._attempt(left, call, outcomes)
        busy = Refusal(Reason.ERROR_REASON_PERSON_BUSY)
        return outcomes | {task.id: busy for task in left}

    async def _attempt(
        self,
        tasks: Sequence[Task],
        call: Call,
        outcomes: dict[str, desk_pb2.FilingAnswer | Refusal],
    ) -> list[Task]:
        """Read, decide, write; returns the tasks of the people that were changed meanwhile."""
        asked = [Asked(task.person_id, task.caller, task.request_id) for task in tasks]
        try:
            reading = await self._store.read(asked)
        except Refusal as refusal:
            outcomes.update({task.id: refusal for task in tasks})
            return []
        costs: Mapping[str, bool | Refusal] = {}
        if self._costs is not None and (leaving := _leaving(tasks, reading)):
            costs = await self._costs.of(leaving, call)
        units: dict[str, _Unit] = {}
        for task in tasks:
            unit = units.get(task.person_id)
            if unit is None:
                unit = units[task.person_id] = _unit(task.person_id, reading)
            try:
                _decide(task, unit, reading, costs)
            except Refusal as refusal:
                unit.outcomes[task.id] = refusal
        changes = [unit.change() for unit in units.values() if unit.requests]
        written: frozenset[str] = frozenset()
        spoiled: list[PersonChange] = []
        if changes:
            try:
                written, spoiled = await self._store.change(changes, instant(self._clock))
            except Refusal as refusal:
                # The connection was lost: whether anything was written is unknown.
                return _lost(units.values(), refusal, outcomes)
        for change in spoiled:
            unit = units[change.person_id]
            broken = Refusal(Reason.ERROR_REASON_INTERNAL, incident=change.requests[0].request_id)
            unit.outcomes = dict.fromkeys(unit.outcomes, broken)
            unit.requests.clear()
        for unit in units.values():
            if not unit.requests or unit.person_id in written:
                outcomes.update(unit.outcomes)
        return [task for task in tasks if task.id not in outcomes]


def _lost(
    units: Iterable[_Unit],
    refusal: Refusal,
    outcomes: dict[str, desk_pb2.FilingAnswer | Refusal],
) -> list[Task]:
    for unit in units:
        outcomes.update(dict.fromkeys(unit.outcomes, refusal) if unit.requests else unit.outcomes)
    return []


def _leaving(tasks: Iterable[Task], reading: Reading) -> set[str]:
    """The filings of these people that are to be left and can have been paid under."""
    wanted = {
        (task.person_id, task.leaves)
        for task in tasks
        if task.leaves and (task.caller, task.request_id) not in reading.answers
    }
    return {
        one.filing_id
        for person, filing_id in wanted
        for one in reading.filings.get(person, ())
        if one.filing_id == filing_id and one.state is FilingState.ACCEPTED
    }


def _unit(person_id: str, reading: Reading) -> _Unit:
    filings = {one.filing_id: one for one in reading.filings.get(person_id, ())}
    return _Unit(person_id, reading.versions.get(person_id, 0), filings, frozenset(filings))


def _decide(task: Task, unit: _Unit, reading: Reading, costs: Mapping[str, bool | Refusal]) -> None:
    """Give the task its answer in the unit; raises `Refusal`."""
    answered = reading.answers.get((task.caller, task.request_id)) or _same_batch(task, unit)
    if answered is not None:
        if answered.digest != task.digest:
            raise Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=task.request_id)
        unit.outcomes[task.id] = (
            messages.filing_answer(unit.filings[answered.filing_id])
            if answered.answer is None
            else desk_pb2.FilingAnswer.FromString(answered.answer)
        )
        return
    paid = costs.get(task.leaves, False)
    if isinstance(paid, Refusal):
        raise paid
    unit.take(task, task.decide(list(unit.filings.values()), paid))


def _same_batch(task: Task, unit: _Unit) -> Answered | None:
    for one in unit.requests:
        if (one.caller, one.request_id) == (task.caller, task.request_id):
            return Answered(one.digest, one.filing_id, one.answer)
    return None
