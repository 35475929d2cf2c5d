"""`yidi bench policy`: its load is what it says, its yardsticks compute the same rule, it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import pytest

from infra.cli.bench_policy import Report
from loadtests import policy, policy_yardsticks
from loadtests.policy_yardsticks import Answer, Inputs
from services.policy.domain.canonical import canonical
from services.policy.domain.compiling import compile_document
from services.policy.domain.facts import BENEFIT_CLASSES, ROUTES
from services.policy.reading import opened_diseases

KINDS = len(list(policy.LIBRARY.glob("*.yaml")))


def test_the_documents_are_the_library_in_other_areas_and_versions() -> None:
    found = [compile_document(each) for each in policy.varied(KINDS + 2)]
    assert len({each.area for each in found}) == KINDS + 2
    assert found[0].benefits.keys() == found[KINDS].benefits.keys()
    assert found[0].version != found[KINDS].version


def test_the_cases_are_mixed_decided_and_always_the_same() -> None:
    documents = [compile_document(each) for each in policy.varied(KINDS)]
    cases = policy.mixed_cases(documents)
    assert cases == policy.mixed_cases(documents)
    assert len(cases) == KINDS * policy.CASES_PER_DOCUMENT
    assert {each.case.route for each in cases} == set(ROUTES)
    assert {each.case.benefit_class for each in cases} == set(BENEFIT_CLASSES)
    assert {each.case.settlement_level for each in cases} == {"one", "two", "three"}
    assert {"inpatient", "outpatient", "chronic"} <= {each.case.care_type for each in cases}
    assert len({each.case.person_class for each in cases}) >= 5
    book, opened = policy.book_of(documents), opened_diseases()
    paid = [policy.evaluate(book, opened, each).fund_total_fen for each in cases]
    assert sum(fen > 0 for fen in paid) > len(cases) // 2


def test_rates_are_measured_on_what_is_held() -> None:
    contents = [canonical(each) for each in policy.varied(2)]
    figures = policy.measure(contents, seconds=0.001, rounds=1)
    assert figures["documents"] == 2
    assert all(value > 0 for value in figures.values())


def plainly(given: Inputs) -> Answer:
    """The rule as a person would compute it."""
    deductible = min(policy_yardsticks.DEDUCTIBLE_YUAN[given.level] * 100, given.in_scope)
    left = given.in_scope - deductible
    less = policy_yardsticks.LESS_POINTS[given.benefit_class]
    low = min(left, policy_yardsticks.SEGMENT_YUAN * 100)
    fund = (low * (policy_yardsticks.LOW_PERCENT[given.level] - less) + 50) // 100
    high = policy_yardsticks.HIGH_PERCENT[given.level] - less
    fund += ((left - low) * high + 50) // 100
    fund = min(fund, policy_yardsticks.CAP_YUAN * 100 - given.used)
    return Answer(deductible, fund, given.total - fund)


def test_the_rule_of_the_yardsticks_is_the_rule() -> None:
    prepare, evaluate = policy_yardsticks.yidi()
    given = policy_yardsticks.inputs()
    expected = [plainly(each) for each in given]
    assert [evaluate(prepare(each)) for each in given] == expected
    full = policy_yardsticks.CAP_YUAN * 100
    capped = [n for n, each in enumerate(given) if expected[n].fund == full - each.used]
    assert 50 < len(capped) < len(given) - 50


@pytest.mark.parametrize("name", policy_yardsticks.PACKAGES)
def test_the_other_libraries_answer_the_same(name: str) -> None:
    if name not in policy_yardsticks.installed():
        pytest.skip("the extra `bench` is not installed")
    # Imported in a process of its own: their warnings are not ours.
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.policy_yardsticks", "0.01", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)[f"ratio_{name}"] > 0


@pytest.mark.integration
def test_the_command_prints_its_figures() -> None:
    """Documents compiled, cases computed, batches answered by a policy role over mTLS."""
    arguments = ["--documents", "5", "--seconds", "0.01", "--rounds", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli.main", "bench", "policy", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert list(figures) == [each.name for each in fields(Report)]
    absent = set(policy_yardsticks.PACKAGES) - set(policy_yardsticks.installed())
    null = {f"{name}_single_per_s" for name in absent} | {f"ratio_{name}" for name in absent}
    assert {name for name, value in figures.items() if value is None} == null
    assert all(value > 0 for name, value in figures.items() if name not in null)
    assert figures["documents"] == 5
    assert ("pip install -e '.[bench]'" in done.stderr) == bool(absent)
