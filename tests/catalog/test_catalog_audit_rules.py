"""The files of audit rules: what the suite ships, and what a file may have wrong (S3-17)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import run_yidi

from infra.runtime.id_number import Sex
from services.catalog.audit_rule_keys import KIND_OF
from services.catalog.audit_rules import (
    RULES,
    AuditRulesError,
    examine_audit_rules,
    load_audit_rules,
)
from services.catalog.domain.audit_rule import PLACEHOLDERS, Action
from yidi.common.v1 import types_pb2

NATIONAL = """\
name: 全国
sources:
  sample: {document: 示例}
rules:
  - code: ONE
    name: 规则一
    kind: duplicate
    action: warn
    select: {codes: [A1], prefixes: [B]}
    message: "{items}请核对。"
    source: sample
"""


SOURCE = "    source: sample"


def examined(folder: Path, text: str, name: str = "national.yaml") -> list[str]:
    if name != "national.yaml":
        (folder / "national.yaml").write_text(NATIONAL, "utf-8")
    (folder / name).write_text(text, "utf-8")
    return [str(one) for one in examine_audit_rules(folder).problems]


def test_the_rules_of_the_suite_are_sound_and_show_every_kind() -> None:
    """Every rule rests on a document or says that it is a sample."""
    rules = load_audit_rules()
    assert set(rules) == {"", "110000", "440000"}
    every = [rule for of_area in rules.values() for rule in of_area]
    assert {type(rule.condition) for rule in every} == set(PLACEHOLDERS) == set(KIND_OF)
    assert {rule.action for rule in every} == set(Action)
    assert all(rule.source.startswith("示例") or "十严禁" in rule.source for rule in every)
    assert {rule.code for rule in rules["110000"]} & {rule.code for rule in rules[""]}


def test_numbers_are_those_of_the_contract() -> None:
    assert {one.name: int(one) for one in Action} == {
        name.removeprefix("AUDIT_ACTION_"): value
        for name, value in types_pb2.AuditAction.items()
        if value
    }
    assert {one.name: int(one) for one in Sex} == {
        name.removeprefix("SEX_"): value for name, value in types_pb2.Sex.items() if value
    }


@pytest.mark.parametrize(
    ("former", "wrong", "line", "path", "text"),
    [
        ("kind: duplicate", "kind: strange", 7, "rules[0].kind", "must be one of duplicate"),
        ("code: ONE", "code: one", 5, "rules[0].code", "capital letters"),
        ("action: warn", "action: shout", 8, "rules[0].action", "none of warn, refuse"),
        ("name: 规则一", "name: 1", 6, "rules[0].name", "text of 1 to 60"),
        (SOURCE, "    source: law", 11, "rules[0].source", "must be one of"),
        (f"{SOURCE}\n", "", 5, "rules[0].source", "must be one of"),
        (
            "    source: sample",
            "    source: sample\n    sex: male",
            12,
            "rules[0].sex",
            "no such key",
        ),
        ("    source: sample", "    source: sample\n    clause: 1", 12, "rules[0].clause", "text"),
        ("    source: sample", "    source: sample\n    most: 0", 12, "rules[0].most", "1 to"),
        (
            "    source: sample",
            "    source: sample\n    from: x",
            12,
            "rules[0].from",
            "must be a day",
        ),
        (
            "    source: sample",
            '    source: sample\n    from: "2026-01-02"\n    until: "2026-01-01"',
            13,
            "rules[0].until",
            "never in force",
        ),
        ("{items}请", "{items}{sex}请", 10, "rules[0].message", "{sex} is none of"),
        ("{items}请", "{items}{请", 10, "rules[0].message", "brace"),
        ("{items}请", "{items!r}请", 10, "rules[0].message", "none of"),
        ("{items}请", "{}请", 10, "rules[0].message", "none of"),
        ("{items}请", "请", 10, "rules[0].message", "must name the {items}"),
        ("{items}请", "{items}" + "请" * 150, 10, "rules[0].message", "1 to 140 characters"),
        ("codes: [A1]", "codes: [B1]", 9, "rules[0].select.codes", "selected by a prefix"),
        ("codes: [A1]", "codes: [A1, A1]", 9, "rules[0].select.codes", "stands twice"),
        ("prefixes: [B]", "prefixes: [B, BC]", 9, "rules[0].select.prefixes", "selected by B"),
        ("codes: [A1]", "codes: []", 9, "rules[0].select.codes", "list of words"),
        (
            "codes: [A1]",
            "fee_categories: [beds]",
            9,
            "rules[0].select.fee_categories",
            "none of bed",
        ),
        ("codes: [A1]", "words: [A1]", 9, "rules[0].select", "must be a map of codes"),
        ("{codes: [A1], prefixes: [B]}", "A1", 9, "rules[0].select", "must be a map of codes"),
        ("    name: 规则一", "    name: 规则一\n    name: 二", 6, "rules[0].name", "stands twice"),
        ("name: 全国", "area: x", 1, "name", "must be given"),
        ("name: 全国", "name: 全国\nextra: 1", 2, "extra", "is none of area"),
        ("{document: 示例}", "{document: 公告}", 3, "sources.sample", "a document has a date"),
        ("{document: 示例}", "{document: 示例, date: x}", 3, "sources.sample", "a sample has none"),
        ("{document: 示例}", "{text: 示例}", 3, "sources.sample", "needs document"),
        ("  sample: ", "  more: {document: 示例}\n  sample: ", 3, "sources.more", "no rule rests"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: Path, former: str, wrong: str, line: int, path: str, text: str
) -> None:
    assert former in NATIONAL
    where = f"national.yaml:{line}: {path}: "
    problems = examined(tmp_path, NATIONAL.replace(former, wrong, 1))
    assert any(one.startswith(where) and text in one for one in problems)
    with pytest.raises(AuditRulesError, match=r"national\.yaml"):
        load_audit_rules(tmp_path)


@pytest.mark.parametrize(
    ("kind", "keys", "path", "text"),
    [
        ("frequency", "most: 1", "within", "must be day, bill"),
        ("frequency", "most: 1, within: 0 days", "within", "must be day, bill"),
        ("frequency", "within: day", "most", "whole number"),
        ("frequency", "within: day, most: 1, together: yes", "together", "true or false"),
        ("sex", "sex: other", "sex", "none of male, female"),
        ("age", "", "kind", "lets every age pass"),
        ("age", "youngest: 0", "kind", "lets every age pass"),
        ("age", "youngest: 9, oldest: 8", "oldest", "lets no age pass"),
        ("institution", "", "kind", "lets every institution pass"),
        ("institution", "kinds: [medical, pharmacy]", "kind", "lets every institution pass"),
        ("institution", "levels: [four]", "levels", "none of one, two"),
        ("exclusive", "", "against", "must be a map"),
        ("exclusive", "against: {codes: [B7]}", "against", "selects what `select` does: B7"),
        ("exclusive", "against: {prefixes: [A]}", "against", "selects what `select` does: A1"),
        ("care_type", "", "care_types", "must name some"),
        (
            "care_type",
            "care_types: [outpatient, emergency, chronic, inpatient, injury_inpatient, pharmacy]",
            "care_types",
            "not all",
        ),
    ],
)
def test_dead_and_unreadable_conditions(
    tmp_path: Path, kind: str, keys: str, path: str, text: str
) -> None:
    """A rule that can never find anything, or that lets nothing pass, is a mistake."""
    own = "".join(f"\n    {one}" for one in keys.split(", ") if keys and ":" in one)
    if "[" in keys or "{" in keys:
        own = f"\n    {keys}"
    written = NATIONAL.replace("kind: duplicate", f"kind: {kind}{own}")
    [problem] = examined(tmp_path, written)
    assert f": rules[0].{path}: " in problem
    assert text in problem


def test_one_code_has_one_rule_on_a_day(tmp_path: Path) -> None:
    rule = NATIONAL[NATIONAL.index("  - code") :]
    [problem] = examined(tmp_path, NATIONAL + rule)
    assert problem == (
        "national.yaml:12: rules[1].code: ONE is in force on the same days: see line 5"
    )
    apart = NATIONAL + '    until: "2025-12-31"\n' + rule + '    from: "2026-01-01"\n'
    assert examined(tmp_path, apart) == []
    assert len(load_audit_rules(tmp_path)[""]) == 2


def test_an_area_says_what_is_different(tmp_path: Path) -> None:
    area = NATIONAL.replace("name: 全国", 'area: "440800"\nname: 湛江市')
    [problem] = examined(tmp_path, area, "440800.yaml")
    assert problem == "440800.yaml:6: rules[0]: says what national.yaml says: remove it"
    other = area.replace("warn", "refuse")
    assert examined(tmp_path, other, "440800.yaml") == []
    assert {rule.action for rule in load_audit_rules(tmp_path)["440800"]} == {Action.REFUSE}
    [problem] = examined(tmp_path, other, "440100.yaml")
    assert problem.startswith("440100.yaml:1: area: must be the name of the file")


@pytest.mark.parametrize("text", ["- a\n", "rules: {\n", "name: 全国\nrules: 1\nsources: 2\n"])
def test_what_is_no_file_of_rules(tmp_path: Path, text: str) -> None:
    assert examined(tmp_path, text)


def test_a_folder_without_national_rules_is_a_mistake(tmp_path: Path) -> None:
    [problem] = examine_audit_rules(tmp_path).problems
    assert problem.file == "national.yaml"
    assert examine_audit_rules(RULES).problems == ()


def test_the_command_says_what_is_wrong_and_what_there_is(tmp_path: Path) -> None:
    """`yidi audit rules` needs no network; the exit code is that of a check."""
    sound = run_yidi(tmp_path, "audit", "rules", "check", "--json")
    assert sound.returncode == 0
    facts = json.loads(sound.stdout)
    assert facts["problems"] == []
    assert facts["rules"]["national"] == len(load_audit_rules()[""])
    (tmp_path / "national.yaml").write_text(NATIONAL.replace("warn", "shout"), "utf-8")
    broken = run_yidi(tmp_path, "audit", "rules", "check", str(tmp_path))
    assert broken.returncode == 1
    assert f"{tmp_path / 'national.yaml'}:8: error: rules[0].action: " in broken.stdout
    assert run_yidi(tmp_path, "audit", "rules", "list", str(tmp_path)).returncode == 2
    assert run_yidi(tmp_path, "audit", "rules", "check", "nowhere").returncode == 2
    listed = run_yidi(tmp_path, "audit", "rules", "list", "--area", "110000", "--json")
    assert {rule["code"] for rule in json.loads(listed.stdout)["110000"]} == {
        "FREQ-DIALYSIS",
        "EXCL-CONSULTATION",
    }
    shown = run_yidi(tmp_path, "audit", "rules", "list", columns=160)
    assert "DUP-EXAM" in shown.stdout
    assert "拒绝" in shown.stdout
    assert run_yidi(tmp_path, "audit", "rules", "list", "--area", "999999").returncode == 2


KEYS = ("code", "name", "kind", "action", "select", "most", "message", "source", "clause", "from")
VALUES = (
    "[a]",
    "[]",
    "{a: b}",
    "{codes: {a: b}}",
    "{codes: [[a]]}",
    "1",
    "true",
    '""',
    "2026-13-01",
)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", VALUES)
def test_nothing_that_stands_in_a_rule_breaks_the_reader(
    tmp_path: Path, key: str, value: str
) -> None:
    """Every value is of a type that somebody may write; what is wrong is always said."""
    own = (f"    {key}:", f"  - {key}:")
    kept = [line for line in NATIONAL.splitlines() if not line.startswith(own)]
    at = next(n for n, line in enumerate(kept) if line.startswith("rules:"))
    rest = "\n".join(kept[at + 1 :]).strip(" -\n")
    text = "\n".join([*kept[: at + 1], f"  - {key}: {value}", f"    {rest}", ""])
    day = "2026-13-01"
    if (key, value) in {("most", "1"), ("clause", '""'), ("clause", day), ("name", day)}:
        assert examined(tmp_path, text) == []
    else:
        assert any(f"rules[0].{key}" in one for one in examined(tmp_path, text))
