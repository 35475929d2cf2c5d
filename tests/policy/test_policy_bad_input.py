"""Bad input is a named error in one sentence, never a number and never a traceback (issue 4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from policy_texts import CASE, SOUND, changed, line_of, run

from infra.runtime.written import MAX_CHARACTERS, MAX_NODES
from services.policy.cases import CaseFaults
from services.policy.domain.case import CannotCompute
from services.policy.domain.document import Document
from services.policy.evaluating import answer, evaluate
from services.policy.reading import Problem, examine


def problems(text: str) -> tuple[Problem, ...]:
    return examine(text).problems


def sound() -> Document:
    document = examine(SOUND).document
    assert document is not None
    return document


# Documents.


def test_a_hundred_mistakes_are_all_reported_at_once() -> None:
    wrong = "".join(
        f"            - {{levels: [three], value: {number}, source: nobody, clause: 例}}\n"
        for number in range(100)
    )
    text = changed(("            - {levels: [three]", wrong + "            - {levels: [three]"))
    found = problems(text)
    assert {each.line for each in found} == set(range(18, 118))
    assert all(each.severity == "error" for each in found)
    for told in ("write e.g. 1300元", "is not among the sources"):
        assert len([each for each in found if told in each.text]) == 100
    assert len(found) == 200


def test_mistakes_of_many_kinds_are_reported_together() -> None:
    text = changed(
        ('area: "999900"', "area: 999900"),
        ("insurance: employee", "insurance: rural"),
        ("value: 600元", "value: 600"),
        ("minus: 10个百分点", "minus: 10%"),
        ("times: 50%", "times: 0.5"),
        ("of: remaining", "of: everything"),
        ("levels: [three]", "levels: [four]"),
        ("clause: 年度限额", "claus: 年度限额"),
        ("title: 示例市职工医保", "title: 示例市职工医保\ntitle: 又一个"),
        ("effective: {", "account:\neffective: {"),
    )
    told = {(each.line, each.path): each.text for each in problems(text)}
    expected = {
        "area": "999900 must be text: put it in quotes",
        "insurance": "'rural' is not known: Input should be 'employee' or 'resident'",
        "title": "stands twice, in line 4 and line 5: keep one",
        "account": "is empty: write a value or remove the key",
        "benefits.inpatient.stages[0].deductible.rows[1].value": "600 is no amount",
        "benefits.inpatient.stages[0].deductible.rows[2].levels[0]": "'three'",
        "benefits.inpatient.stages[0].deductible.adjust[0].rows[0].times": "'0.5' is no share",
        "benefits.inpatient.stages[1].fund.of": "'remaining'",
        "benefits.inpatient.stages[1].fund.adjust[0].rows[0].minus": "write e.g. 10个百分点",
        "benefits.inpatient.stages[1].fund.caps[0].rows[0].claus": "is not a key of the model",
        "benefits.inpatient.stages[1].fund.caps[0].rows[0].clause": "is missing: add it",
    }
    for path, fragment in expected.items():
        assert any(path == where and fragment in each for (_, where), each in told.items()), path
    assert len(told) == len(expected)
    lines = {path: line for line, path in told}
    assert lines["insurance"] == 2
    assert lines["benefits.inpatient.stages[1].fund.of"] == line_of(text, "of: everything")


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("", 0, "must be a map"),
        ("- 1\n", 1, "must be a map"),
        ("area: [1, 2\nversion: 3", 2, "is no YAML"),
        ("area: 'x\n", 2, "is no YAML"),
        ("a: 1\n\tb: 2\n", 2, "is no YAML"),
        ("area: a\n---\narea: b\n", 2, "is no YAML"),
        ("a: *nobody\n", 1, "is no YAML"),
        ("a: \x00\n", 0, "is no YAML"),
        ("a: " + "[" * 60 + "]" * 60, 1, "nested too deep"),
        ("a: &a [1]\nb: [" + ", ".join(["*a"] * MAX_NODES) + "]", 1, "too large"),
        ("a: &a\n  b: *a\n", 1, "nested too deep"),
        ("a: " + "x" * MAX_CHARACTERS, 0, "more than"),
    ],
    ids=range(12),
)
def test_text_that_is_no_document(text: str, line: int, told: str) -> None:
    examined = examine(text)
    assert examined.document is None
    (found,) = examined.problems
    assert told in found.text
    assert found.line in (line, line + 1)


def test_aliases_that_multiply_are_bounded() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 20)
    )
    (found,) = problems(bomb)
    assert "too large" in found.text


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None], ids=["not UTF-8", "a folder"])
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "policy.yaml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    ran = run("policy", "diff", str(file), str(file))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"yidi: {file}: ")
    assert ran.stderr.count("\n") == 1


def test_a_broken_file_in_a_folder_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff")
    (tmp_path / "b.yaml").write_text("x: 1\n", encoding="utf-8")
    ran = run("policy", "check", str(tmp_path))
    assert ran.returncode == 1
    assert f"{tmp_path / 'a.yaml'}: error: is not UTF-8" in ran.stdout
    assert f"{tmp_path / 'b.yaml'}:1: error: x: is not a key" in ran.stdout


def test_nothing_to_check(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "missing"):
        ran = run("policy", "check", str(where))
        assert (ran.returncode, ran.stdout) == (2, "")


# Cases.

WRONG = [
    ({"amounts_fen.total": -1}, "NEGATIVE_AMOUNT", "amounts_fen.total"),
    ({"amounts_fen.in_scope": -2_490_000}, "NEGATIVE_AMOUNT", "amounts_fen.in_scope"),
    ({"amounts_fen.in_scope": 2_489_999}, "PARTS_DO_NOT_SUM", "amounts_fen.total"),
    ({"amounts_fen.total": 2600.5}, "WRONG_TYPE", "amounts_fen.total"),
    ({"amounts_fen.total": "2600000"}, "WRONG_TYPE", "amounts_fen.total"),
    ({"amounts_fen.over_limit": True}, "WRONG_TYPE", "amounts_fen.over_limit"),
    ({"amounts_fen.total": 10**13}, "OUT_OF_RANGE", "amounts_fen.total"),
    ({"amounts_fen": None}, "MISSING_FIELD", "amounts_fen.total"),
    ({"amounts_fen": [1]}, "WRONG_TYPE", "amounts_fen"),
    ({"amounts_fen.cash": 1}, "UNKNOWN_FIELD", "amounts_fen.cash"),
    ({"institution.level": "four"}, "UNKNOWN_VALUE", "institution.level"),
    ({"institution.level": None}, "MISSING_FIELD", "institution.level"),
    ({"institution.grade": 3}, "WRONG_TYPE", "institution.grade"),
    ({"insurance": "rural"}, "UNKNOWN_VALUE", "insurance"),
    ({"insurance": "resident"}, "WRONG_INSURANCE", "insurance"),
    ({"area": "110000"}, "WRONG_AREA", "area"),
    ({"person.class": "adult_resident"}, "UNKNOWN_VALUE", "person.class"),
    ({"person.class": None}, "MISSING_FIELD", "person.class"),
    ({"person.age": -1}, "OUT_OF_RANGE", "person.age"),
    ({"person.age": 151}, "OUT_OF_RANGE", "person.age"),
    ({"benefit_class": None}, "MISSING_FIELD", "benefit_class"),
    ({"benefit_class": "long_term_back_home"}, "UNKNOWN_COMBINATION", "benefit_class"),
    ({"care_type": None}, "MISSING_FIELD", "care_type"),
    ({"care_type": "dental"}, "UNKNOWN_VALUE", "care_type"),
    ({"route": "abroad"}, "UNKNOWN_VALUE", "route"),
    ({"disease": "hypertension"}, "UNKNOWN_VALUE", "disease"),
    ({"admitted": "2024-02-30"}, "WRONG_DATE", "admitted"),
    ({"discharged": "2024-02-01"}, "WRONG_DATE", "discharged"),
    ({"discharged": "1.3.2024"}, "WRONG_DATE", "discharged"),
    ({"discharged": 20240309}, "WRONG_TYPE", "discharged"),
    ({"admitted": "2023-03-01", "discharged": "2023-03-02"}, "OUTSIDE_PERIOD", "discharged"),
    ({"nth_admission": 0}, "OUT_OF_RANGE", "nth_admission"),
    ({"nth_admission": "second"}, "WRONG_TYPE", "nth_admission"),
    ({"accumulators_fen": {"pooled_used_fen": -1}}, "NEGATIVE_AMOUNT", "accumulators_fen.pooled"),
    ({"accumulators_fen": {"used": 1}}, "UNKNOWN_FIELD", "accumulators_fen.used"),
    ({"accumulators_fen": 5}, "WRONG_TYPE", "accumulators_fen"),
    ({"account_balance_fen": -1}, "NEGATIVE_AMOUNT", "account_balance_fen"),
    ({"use_account": "yes"}, "WRONG_TYPE", "use_account"),
    ({"levl": "three"}, "UNKNOWN_FIELD", "levl"),
    ({"person": "retired"}, "WRONG_TYPE", "person"),
]


def wrong(changes: dict[str, Any]) -> dict[str, Any]:
    """`CASE` with fields replaced by their path; None leaves one out."""
    data: dict[str, Any] = json.loads(json.dumps(CASE))
    for path, value in changes.items():
        *groups, name = path.split(".")
        inner = data
        for group in groups:
            inner = inner[group]
        inner.pop(name, None)
        if value is not None:
            inner[name] = value
    return data


@pytest.mark.parametrize(("changes", "name", "field"), WRONG)
def test_case_that_is_wrong_is_a_named_error(
    tmp_path: Path, changes: dict[str, Any], name: str, field: str
) -> None:
    policy, case = tmp_path / "policy.yaml", tmp_path / "case.json"
    policy.write_text(SOUND, encoding="utf-8")
    case.write_text(json.dumps(wrong(changes)), encoding="utf-8")
    ran = run("policy", "evaluate", "--policy", str(policy), "--case", str(case), "--json")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert any(
        line.startswith(f"yidi: {case}: {name} {field}") for line in ran.stderr.splitlines()
    ), ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_fault_of_a_case_is_told_at_once() -> None:
    data = wrong({"amounts_fen.total": -1, "institution.level": "four", "admitted": "x", "x": 1})
    with pytest.raises(CaseFaults) as raised:
        evaluate(sound(), data)
    names = {each.name for each in raised.value.faults}
    assert names == {"NEGATIVE_AMOUNT", "UNKNOWN_VALUE", "WRONG_DATE", "UNKNOWN_FIELD"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", ":1: MALFORMED is no JSON"),
        ('{"a": 1,\n "b": }', ":2: MALFORMED is no JSON"),
        ('{"area": "1", "area": "2"}', "MALFORMED is no JSON: key 'area' stands twice"),
        ("[1, 2]", ":1: MALFORMED must be a map"),
        ("", "MALFORMED must be a map"),
        ("area: [", "MALFORMED is no YAML"),
        ("route: local\nroute: local\n", "MALFORMED route stands twice, in line 1 and line 2"),
        ("route:\n", "MALFORMED route is empty"),
        ('{"amounts_fen": {"total": 1' + "0" * 5000 + "}}", "MALFORMED is no JSON"),
        ("{" + '"a": {' * 100_000, "MALFORMED is no JSON"),
        ('{"person": {"age": NaN}}', "WRONG_TYPE person.age"),
    ],
    ids=range(11),
)
def test_malformed_case(tmp_path: Path, text: str, told: str) -> None:
    policy, case = tmp_path / "policy.yaml", tmp_path / "case"
    policy.write_text(SOUND, encoding="utf-8")
    case.write_text(text, encoding="utf-8")
    ran = run("policy", "evaluate", "--policy", str(policy), "--case", str(case), "--json")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def test_document_that_is_wrong_is_named_with_its_line(tmp_path: Path) -> None:
    policy, case = tmp_path / "policy.yaml", tmp_path / "case.json"
    policy.write_text(changed(("value: 600元", "value: 600")), encoding="utf-8")
    case.write_text(json.dumps(CASE), encoding="utf-8")
    ran = run("policy", "evaluate", "--policy", str(policy), "--case", str(case))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"yidi: {policy}:17: ")
    assert "600 is no amount: write e.g. 1300元" in ran.stderr


def test_what_the_document_does_not_state_is_refused(tmp_path: Path) -> None:
    policy, case = tmp_path / "policy.yaml", tmp_path / "case.json"
    policy.write_text(changed(("value: 900元", "value: not_stated")), encoding="utf-8")
    case.write_text(json.dumps(CASE), encoding="utf-8")
    arguments = ("policy", "evaluate", "--policy", str(policy), "--case", str(case), "--json")
    ran = run(*arguments)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "POLICY_NOT_STATED" in ran.stderr
    assert "inpatient/deductible[levels=three]" in ran.stderr
    policy.write_text(changed(("levels: [two]", "levels: [two, three]")), encoding="utf-8")
    ran = run(*arguments)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "POLICY_AMBIGUOUS" in ran.stderr


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**30, 1.5, "", "x", "0", "三级", "\x00", "2024-13-01"),
    *([], [1], {}, {"a": 1}, [[]], {"": None}, "M03900", "local", "inpatient"),
)


def paths(data: dict[str, Any], before: str = "") -> list[str]:
    found = []
    for key, value in data.items():
        found.append(f"{before}{key}")
        if isinstance(value, dict):
            found += paths(value, f"{before}{key}.")
    return found


def test_odd_values_anywhere_are_faults_or_a_case_that_adds_up() -> None:
    document = sound()
    more = ["account_balance_fen", "accumulators_fen", "settled", "unfiled", "basis", "care_area"]
    tried = computed = 0
    for path in [*paths(CASE), *more]:
        for value in ODD:
            data = wrong({path: value}) if value is not None else wrong({path: 1})
            tried += 1
            try:
                given, benefit = evaluate(document, data)
            except (CaseFaults, CannotCompute):
                continue
            computed += 1
            told = answer(document, given, benefit)
            paid = told["fund_total_fen"] + told["account_fen"] + told["cash_fen"]
            assert paid == given.case.total_fen
            assert min(told["cash_fen"], told["fund_total_fen"], told["ratio_self_pay_fen"]) >= 0
    assert tried > 400
    assert computed < tried / 4
