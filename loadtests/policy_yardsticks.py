"""One inpatient rule in this suite, in openfisca-core and in zen-engine: how many cases a second.

The rule: a deductible by level, two segments of what is left with a ratio by level, less points by
benefit class, up to what the year has left of a cap. Each library gets a case as it takes it,
made beforehand, and answers deductible, fund and cash; all answers must be the same to the fen.

`python -m loadtests.policy_yardsticks SECONDS ROUNDS` prints the figures as JSON. The libraries are
the extra `bench`; without them their figures are null.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from random import Random
from statistics import median
from typing import Any, NamedTuple

from loadtests.policy import rate
from services.policy.domain.case import Case, Counters
from services.policy.domain.chain import compute_visit
from services.policy.domain.compiling import compile_document

LEVELS = ("one", "two", "three")
DEDUCTIBLE_YUAN = {"one": 400, "two": 600, "three": 800}
LOW_PERCENT = {"one": 90, "two": 85, "three": 80}
HIGH_PERCENT = {"one": 95, "two": 90, "three": 85}
SEGMENT_YUAN, CAP_YUAN = 50_000, 300_000
LESS_POINTS = {"local": 0, "referral": 10, "other_temporary": 20}
PACKAGES = {"openfisca": "openfisca_core", "zen": "zen"}
"""Yardstick → the package that it imports."""
_CASES = 500
_SEED = 20_260_102
_YEAR = "2026"


class Inputs(NamedTuple):
    """One case; fen."""

    level: str
    benefit_class: str
    total: int
    in_scope: int
    used: int
    """What the pooled fund has paid this year."""


class Answer(NamedTuple):
    """What it comes to; fen."""

    deductible: int
    fund: int
    cash: int


class Yardstick(NamedTuple):
    """One way to compute the rule."""

    prepare: Callable[[Inputs], Any]
    evaluate: Callable[[Any], Answer]


def inputs() -> list[Inputs]:
    """Cases over levels, classes and amounts, some of them beyond the cap."""
    random = Random(_SEED)
    found = []
    for _ in range(_CASES):
        in_scope = random.choice((random.randrange(8_000_000), random.randrange(60_000_000)))
        found.append(
            Inputs(
                level=random.choice(LEVELS),
                benefit_class=random.choice(tuple(LESS_POINTS)),
                total=in_scope + random.randrange(1_000_000),
                in_scope=in_scope,
                used=random.choice((0, random.randrange(30_000_000))),
            )
        )
    return found


def yidi() -> Yardstick:
    """A policy document, compiled once."""
    founded = {"source": "example", "clause": "一"}
    by_level = {"deductible": DEDUCTIBLE_YUAN, "low": LOW_PERCENT, "high": HIGH_PERCENT}
    rows = {
        name: [
            {"levels": [level], "value": f"{value}{'元' if name == 'deductible' else '%'}"}
            for level, value in values.items()
        ]
        for name, values in by_level.items()
    }
    less = [
        {"classes": [each], "minus": f"{points}个百分点", **founded}
        for each, points in LESS_POINTS.items()
        if points
    ]
    fund = {
        "code": "hifp_pay",
        "name": "统筹基金",
        "of": "remaining",
        "brackets": {"count": "above_deductible"},
        "ratio": [
            *({**row, **founded, "up_to": f"{SEGMENT_YUAN}元"} for row in rows["low"]),
            *({**row, **founded} for row in rows["high"]),
        ],
        "adjust": [{"when": {"classes": [row["classes"][0] for row in less]}, "rows": less}],
        "caps": [{"rows": [{"value": f"{CAP_YUAN}元", **founded}]}],
    }
    deductible = {"due": "each_stay", "rows": [row | founded for row in rows["deductible"]]}
    benefit = {
        "care_types": ["inpatient"],
        "counts_stays": True,
        "stages": [{"deductible": deductible}, {"fund": fund}],
    }
    document = compile_document(
        {
            "area": "999900",
            "insurance": "employee",
            "version": "1",
            "title": "例",
            "effective": {"start": f"{_YEAR}-01-01"},
            "sources": {"example": {"title": "例", "provenance": "secondary"}},
            "benefits": {"inpatient": benefit},
        }
    )

    def prepare(given: Inputs) -> tuple[Case, dict[str, Counters]]:
        case = Case(
            route="local" if given.benefit_class == "local" else "cross_province",
            basis="filed",
            benefit_class=given.benefit_class,
            care_type="inpatient",
            person_class="employed",
            age=50,
            deductible_level=given.level,
            settlement_level=given.level,
            end_date=f"{_YEAR}-06-01",
            business_day=f"{_YEAR}-06-01",
            use_account=False,
            total_fen=given.total,
            full_self_pay_fen=given.total - given.in_scope,
            over_limit_fen=0,
            first_self_pay_fen=0,
            in_scope_fen=given.in_scope,
        )
        return case, {_YEAR: Counters(stay_count=1, pooled_used_fen=given.used)}

    def evaluate(prepared: tuple[Case, dict[str, Counters]]) -> Answer:
        case, counters = prepared
        benefit = compute_visit(document, case, counters, 0)
        return Answer(benefit.deductible_fen, benefit.fund_total_fen, benefit.cash_fen)

    return Yardstick(prepare, evaluate)


def openfisca() -> Yardstick:
    """A tax and benefit system whose parameters are by level and class; a simulation a case."""
    import numpy
    from openfisca_core.entities import build_entity
    from openfisca_core.indexed_enums import Enum
    from openfisca_core.parameters import ParameterNode
    from openfisca_core.periods import DateUnit
    from openfisca_core.simulations import SimulationBuilder
    from openfisca_core.taxbenefitsystems import TaxBenefitSystem
    from openfisca_core.variables import Variable

    person = build_entity(key="person", plural="persons", label="", is_person=True)
    base = {"entity": person, "definition_period": DateUnit.YEAR}
    enums: dict[str, Any] = {
        "level": Enum("Level", {each: each for each in LEVELS}),
        "benefit_class": Enum("BenefitClass", {each: each for each in LESS_POINTS}),
    }
    system = TaxBenefitSystem([person])

    def add(name: str, **body: Any) -> None:
        system.add_variable(type(name, (Variable,), {"value_type": int, **base, **body}))

    def deductible(one: Any, period: Any, parameters: Any) -> Any:
        due = parameters(period).deductible[one("level", period)]
        return numpy.minimum(due, one("in_scope", period))

    def fund(one: Any, period: Any, parameters: Any) -> Any:
        stated, level = parameters(period), one("level", period)
        left = one("in_scope", period).astype(numpy.int64) - one("deductible", period)
        less = stated.less[one("benefit_class", period)].astype(numpy.int64)
        low = numpy.minimum(left, SEGMENT_YUAN * 100)
        paid = sum(
            (part * (ratio[level].astype(numpy.int64) - less) + 50) // 100
            for part, ratio in ((low, stated.low), (left - low, stated.high))
        )
        return numpy.minimum(paid, numpy.maximum(stated.cap - one("used", period), 0))

    def cash(one: Any, period: Any) -> Any:
        return one("total", period) - one("fund", period)

    for name, values in enums.items():
        default = next(iter(values))
        add(name, value_type=Enum, possible_values=values, default_value=default)
    for name in ("total", "in_scope", "used"):
        add(name)
    add("deductible", formula=deductible)
    add("fund", formula=fund)
    add("cash", formula=cash)

    def stated(value: int) -> dict[str, Any]:
        return {"values": {"2000-01-01": {"value": value}}}

    fen = {level: yuan * 100 for level, yuan in DEDUCTIBLE_YUAN.items()}
    tables = {"deductible": fen, "low": LOW_PERCENT, "high": HIGH_PERCENT, "less": LESS_POINTS}
    data: dict[str, Any] = {
        name: {key: stated(value) for key, value in table.items()} for name, table in tables.items()
    }
    data["cap"] = stated(CAP_YUAN * 100)
    system.parameters = ParameterNode("", data=data)

    def prepare(given: Inputs) -> dict[str, list[Any]]:
        return {name: [value] for name, value in given._asdict().items()}

    def evaluate(prepared: dict[str, list[Any]]) -> Answer:
        # Quicker than building it from a situation in JSON, which is the other way.
        simulation = SimulationBuilder().build_default_simulation(system)
        for name, value in prepared.items():
            simulation.set_input(name, _YEAR, value)
        return Answer(*(int(simulation.calculate(name, _YEAR)[0]) for name in Answer._fields))

    return Yardstick(prepare, evaluate)


def zen() -> Yardstick:
    """A decision graph: a table by level, a table by class, then the amounts.

    Held by the engine's own loader, which compiles it once; what `create_decision` returns answers
    a fraction as many cases.
    """
    from zen import ZenEngine

    by_level = {
        "due": {level: yuan * 100 for level, yuan in DEDUCTIBLE_YUAN.items()},
        "low": LOW_PERCENT,
        "high": HIGH_PERCENT,
    }
    left = f"min([$.left, {SEGMENT_YUAN * 100}])"
    amounts = {
        "deductible": "min([due, in_scope])",
        "left": "in_scope - $.deductible",
        "first": left,
        "paid": (
            "round($.first * (low - less) / 100) + round(($.left - $.first) * (high - less) / 100)"
        ),
        "fund": f"min([$.paid, max([{CAP_YUAN * 100} - used, 0])])",
        "cash": "total - $.fund",
    }
    expressions = [{"id": key, "key": key, "value": value} for key, value in amounts.items()]
    nodes = [
        _node("inputNode", "request", {}),
        _zen_table("level", by_level),
        _zen_table("benefit_class", {"less": LESS_POINTS}),
        _node("expressionNode", "amounts", {"expressions": expressions}),
        _node("outputNode", "response", {}),
    ]
    names = [node["id"] for node in nodes]
    edges = [
        {"id": f"{source}-{target}", "sourceId": source, "targetId": target, "type": "edge"}
        for source, target in pairwise(names)
    ]
    graph = {
        "contentType": "application/vnd.gorules.decision",
        "nodes": nodes,
        "edges": edges,
    }
    engine = ZenEngine({"loader": {"type": "static", "content": {"rule": graph}}})

    def evaluate(prepared: dict[str, Any]) -> Answer:
        result = engine.evaluate("rule", prepared)["result"]
        return Answer(result["deductible"], result["fund"], result["cash"])

    return Yardstick(lambda given: given._asdict(), evaluate)


def _node(kind: str, name: str, content: dict[str, Any]) -> dict[str, Any]:
    position = {"x": 0, "y": 0}
    return {"id": name, "name": name, "type": kind, "content": content, "position": position}


def _zen_table(field: str, columns: dict[str, dict[str, int]]) -> dict[str, Any]:
    """A decision table over one field."""
    keys = next(iter(columns.values()))
    content = {
        "hitPolicy": "first",
        "passThrough": True,
        "inputs": [{"id": "in", "name": field, "field": field}],
        "outputs": [{"id": name, "name": name, "field": name} for name in columns],
        "rules": [
            {
                "_id": key,
                "in": f'"{key}"',
                **{name: str(values[key]) for name, values in columns.items()},
            }
            for key in keys
        ],
    }
    return _node("decisionTableNode", f"by {field}", content)


def installed() -> list[str]:
    """The yardsticks whose package is there."""
    return [name for name, package in PACKAGES.items() if find_spec(package) is not None]


def measure(*, seconds: float, rounds: int) -> dict[str, float | None]:
    """Cases a second by yardstick, by turns: medians of `rounds` of `seconds` each; raise
    `RuntimeError` where the answers differ."""
    made = {
        "yidi": yidi(),
        **{name: {"openfisca": openfisca, "zen": zen}[name]() for name in installed()},
    }
    given = inputs()
    works = {}
    expected: list[Answer] = []
    for name, (prepare, evaluate) in made.items():
        prepared = [prepare(each) for each in given]
        answers = [evaluate(each) for each in prepared]
        expected = expected or answers
        if answers != expected:
            at = next(n for n, answer in enumerate(answers) if answer != expected[n])
            raise RuntimeError(f"{name}: {given[at]} is {answers[at]}, not {expected[at]}")
        works[name] = _work(prepared, evaluate)
    rates = [{name: rate(work, seconds) for name, work in works.items()} for _ in range(rounds)]
    found: dict[str, float | None] = {
        "rule_single_per_s": round(median(each["yidi"] for each in rates), 1)
    }
    for name in PACKAGES:
        known = name in works
        found[f"{name}_single_per_s"] = (
            round(median(each[name] for each in rates), 1) if known else None
        )
        found[f"ratio_{name}"] = (
            round(median(each["yidi"] / each[name] for each in rates), 2) if known else None
        )
    return found


def _work(prepared: list[Any], evaluate: Callable[[Any], Answer]) -> Callable[[], int]:
    def work() -> int:
        for each in prepared:
            evaluate(each)
        return len(prepared)

    return work


def main() -> None:
    """Measure; seconds and rounds are the arguments."""
    seconds, rounds = sys.argv[1:]
    print(json.dumps(measure(seconds=float(seconds), rounds=int(rounds))))


if __name__ == "__main__":
    main()
