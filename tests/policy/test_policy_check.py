"""What `check` finds before a document is published (DESIGN §7: exactly one value each)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from policy_texts import SOUND, changed, line_of

from services.policy.reading import Problem, examine, national_bounds

RATIO = "persons: [retired], value: 90%"
EMPLOYED = "persons: [employed, self_employed, bankrupt_unit]\n"


def problems(text: str) -> tuple[Problem, ...]:
    return examine(text).problems


def only(text: str, severity: str = "error") -> Problem:
    found = problems(text)
    assert len(found) == 1, found
    assert found[0].severity == severity
    return found[0]


def test_sound_document_has_no_finding() -> None:
    examined = examine(SOUND)
    assert examined.document is not None
    assert examined.problems == ()


def test_gap_names_the_exact_combination() -> None:
    text = changed(("levels: [one, other, unrated]", "levels: [one]"))
    found = only(text)
    assert "no row holds for levels other, unrated (机构级别 其他、未定级)" in found.text
    assert "not_stated" in found.text
    assert found.path == "benefits.inpatient.stages[0].deductible.rows"
    assert found.line == line_of(text, "due: each_stay") + 1


def test_gap_of_two_facts_is_summarised() -> None:
    text = changed(
        (RATIO, "persons: [retired], levels: [three], value: 90%"),
        (EMPLOYED, "persons: [employed]\n              ages: '0-59'\n"),
    )
    found = only(text)
    assert "persons self_employed, bankrupt_unit" in found.text
    assert "persons employed (人员类别 在职) with ages 60- (年龄)" in found.text
    assert "persons retired (人员类别 退休) with levels one, two, other, unrated" in found.text


def test_many_gaps_are_counted() -> None:
    rows = "".join(
        f"            - {{persons: [retired], ages: '{age}', levels: [{level}], "
        "value: 80%, source: text, clause: 例}\n"
        for age, level in zip(range(10, 40), ["one", "two", "three"] * 10, strict=True)
    )
    text = changed((f"            - {{{RATIO}, source: text, clause: 退休}}\n", rows))
    assert "more combinations" in only(text).text


def test_overlap_names_rows_and_combination() -> None:
    text = changed((RATIO, "ages: '60-', value: 90%"))
    gap, overlap = problems(text)
    assert "no row holds for persons retired (人员类别 退休) with ages 0-59 (年龄)" in gap.text
    assert "rows [0] and [1] all hold for persons employed, self_employed, bankrupt_unit" in (
        overlap.text
    )
    assert "ages 60-" in overlap.text
    assert overlap.line == line_of(text, "- persons: [employed")


def test_rows_are_judged_where_the_table_is_asked_only() -> None:
    # Within `when` one stay is left: a row for the first stay never holds, none is missing.
    text = changed(("[{times: 50%,", '[{stays: "2-", times: 50%,'))
    assert problems(text) == ()
    text = changed(
        (
            "[{times: 50%,",
            '[{stays: "1", value: unchanged, source: text, clause: 首次}, {times: 50%,',
        )
    )
    rows = [each.path for each in problems(text)]
    assert rows == ["benefits.inpatient.stages[0].deductible.adjust[0].rows[0]"]


def test_route_and_class_that_no_visit_has_need_no_row() -> None:
    text = changed(
        (
            "[{minus: 20个百分点, source: text, clause: 其他临时外出}]",
            "[{routes: [in_province, cross_province], minus: 20个百分点, source: text, "
            "clause: 其他临时外出}]",
        )
    )
    assert problems(text) == ()


@pytest.mark.parametrize(
    "condition", ["classes: [referral], routes: [local]", "persons: [retired]"]
)
def test_condition_that_no_visit_meets(condition: str) -> None:
    text = changed(
        ('when: {stays: "2-"}', f"when: {{{condition}}}"),
        ("counts_stays: true", "counts_stays: false"),
    )
    expected = "routes: [local]" in condition
    assert bool(problems(text)) is expected
    if expected:
        assert "no visit can meet this condition" in only(text).text


def test_stays_of_a_benefit_that_counts_none() -> None:
    found = only(changed(("    counts_stays: true\n", "")))
    assert found.path == "benefits.inpatient.stages[0].deductible.adjust[0].when"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("{up_to: 1万元, value: 80%, S}, {up_to: 2万元, value: 90%, S}", "no last bracket"),
        ("{up_to: 1万元, value: 80%, S}, {up_to: 1万元, value: 85%, S}, {value: 90%, S}", "bound"),
        ("{up_to: 0元, value: 80%, S}, {value: 90%, S}", "holds nothing"),
        ("{value: 80%, S}, {value: 90%, S}", "[0] and [1] all hold for every visit"),
    ],
)
def test_brackets(rows: str, told: str) -> None:
    start = SOUND.index("          ratio:")
    end = SOUND.index("          adjust:\n            - when: {classes: [referral,")
    rows = rows.replace("S", "source: text, clause: 例")
    found = only(f"{SOUND[:start]}          ratio: [{rows}]\n{SOUND[end:]}")
    assert told in found.text


def test_two_deductibles_that_both_apply() -> None:
    second = """\
      - deductible:
          due: each_stay
          when: {persons: [retired]}
          rows: [{value: 100元, source: text, clause: 例}]
"""
    found = only(changed(("      - fund:\n", second + "      - fund:\n")))
    assert "stages [0] and [1] both apply to persons retired" in found.text


def test_over_cap_without_a_cap() -> None:
    more = """\
      - fund:
          code: hifob_pay
          name: 大额
          of: over_cap
          beyond: [own]
          ratio: [{value: 90%, source: text, clause: 例}]
"""
    assert "no fund before it has such a cap" in only(SOUND + more).text


def test_diseases_outside_the_covered_ones_never_hold() -> None:
    benefit = """\
  chronic:
    care_types: [chronic]
    diseases: {covered: [M03900, M00503], otherwise: refused, source: text, clause: 目录}
    stages:
      - fund:
          code: hifp_pay
          name: 统筹基金
          of: remaining
          ratio:
            - {diseases: [M03900], value: 70%, source: text, clause: 例}
            - {diseases: [M00500], value: 80%, source: text, clause: 例}
          adjust:
            - when: {classes: [other_temporary]}
              rows: [{value: unchanged, source: text, clause: 例}]
"""
    assert problems(SOUND + benefit) == ()
    wrong = benefit.replace("diseases: [M00500]", "diseases: [M07800]")
    gap, row = problems(SOUND + wrong)
    assert "no row holds for diseases M00503 (病种)" in gap.text
    assert row.path == "benefits.chronic.stages[0].fund.ratio[1]"
    falls = benefit.replace("otherwise: refused", "otherwise: outpatient")
    assert "which no benefit pays" in only(SOUND + falls).text


def test_other_in_a_condition_is_everything() -> None:
    text = changed(('when: {stays: "2-"}', "when: {places: ['51', other]}"))
    assert "`other` means everything in `when`" in only(text).text


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("value: 85%", "value: 0.85%", "was 85% meant?"),
        ("times: 50%", "times: 100%", "changes nothing"),
        ("{times: 50%", "{minus: 0元", "changes nothing"),
        ("value: 30万元", "value: 0元", "a cap of nothing"),
        ("value: 600元", "value: 300元", "level two has 300.00元, less than 400.00元 of level one"),
        ("url: example.org, provenance: official", "provenance: secondary", "without a `url`"),
        ("{minus: 20个百分点", "{at_most: 95%", "changes the share of no visit"),
    ],
)
def test_doubtful_values_are_warnings(before: str, after: str, told: str) -> None:
    found = problems(changed((before, after)))
    assert {each.severity for each in found} == {"warning"}
    assert any(told in each.text for each in found), found


def test_shares_that_come_out_impossible() -> None:
    found = problems(changed(("value: 85%", "value: 15%")))
    assert any("takes more points off than there are" in each.text for each in found)
    lifted = changed(("{minus: 10个百分点", "{plus: 15个百分点"))
    told = [each.text for each in problems(lifted) if not each.clause]
    assert len(told) == 1
    assert "lifts the share over 100 % for classes referral, " in told[0]
    assert "with persons retired" in told[0]
    limit = (
        "            - rows: [{at_most: 100%, source: text, clause: 不超过100%}]\n          caps:"
    )
    found = problems(lifted.replace("          caps:", limit))
    assert [each.text for each in found if not each.clause] == []


def test_silence_on_other_temporary_care_is_a_warning() -> None:
    text = changed(("classes: [other_temporary]", "classes: [emergency], late_filing: true"))
    assert "跨省其他临时外出" in only(text, "warning").text


# National bounds (DESIGN §7): points, multiples, tables and first pays alike.


def breaches(text: str) -> list[Problem]:
    found = [each for each in problems(text) if each.clause]
    assert all(each.severity == "warning" for each in found)
    assert [each for each in problems(text) if each.severity == "error"] == []
    return found


@pytest.mark.parametrize(
    "change",
    [
        ("minus: 20个百分点", "minus: 21个百分点"),
        ("minus: 20个百分点", "times: 70%"),
        ("minus: 20个百分点", "set: 60%"),
    ],
)
def test_more_than_twenty_points_below_local(change: tuple[str, str]) -> None:
    (found,) = breaches(
        changed(change, ('{start: "2024-01-01"}', '{start: "2024-01-01", end: "2024-08-31"}'))
    )
    assert "降幅不超过20个百分点" in found.text
    assert found.clause == "医保发〔2022〕22号"


def test_first_pay_is_a_reduction_too() -> None:
    stage = """\
      - first_pay:
          when: {classes: [referral]}
          rows: [{value: 20%, source: text, clause: 先行自付}]
      - deductible:
"""
    (found, *_) = breaches(changed(("      - deductible:\n", stage)))
    # Retired: 90 % less 10 points is 80 %; of what 20 % first pay leave, 64 %.
    assert "pays 64%, the least is 80%, for persons retired" in found.text


def test_bounds_are_dated() -> None:
    loose = ("minus: 20个百分点", "minus: 23个百分点")
    # From 2024-09-05 the text says "about" (左右).
    assert breaches(changed(loose, ('start: "2024-01-01"', 'start: "2024-09-05"'))) == []
    assert len(breaches(changed(loose))) == 1
    far = ("minus: 20个百分点", "minus: 26个百分点")
    clauses = [each.clause for each in breaches(changed(far))]
    assert clauses == ["医保发〔2022〕22号", "医保发〔2024〕21号 二"]
    assert (
        breaches(changed(far, ('start: "2024-01-01"', 'start: "2020-01-01", end: "2022-12-31"')))
        == []
    )


def test_filed_place_is_local_level() -> None:
    (found,) = breaches(changed(("[other_temporary]", "[other_temporary, long_term_at_place]")))
    assert "备案地原则上执行参保地本地支付比例" in found.text


def test_back_home_not_below_referral() -> None:
    (found,) = breaches(changed(("[other_temporary]", "[other_temporary, long_term_back_home]")))
    assert "不低于跨省转诊水平" in found.text


def test_what_areas_do_to_unfiled_visits_is_not_bound() -> None:
    text = changed(
        ("when: {classes: [other_temporary]}", "when: {classes: [other_temporary], unfiled: true}"),
        ("minus: 20个百分点", "times: 50%"),
    )
    assert breaches(text) == []


def test_every_national_bound_has_its_clause_and_day() -> None:
    for bound in national_bounds():
        assert bound.clause
        assert bound.start >= "2021-01-01"


# The documents of the project.


def test_a_folder_is_checked_in_seconds() -> None:
    folder = Path(__file__).parents[2] / "services" / "policy" / "documents"
    started = time.perf_counter()
    found = {file.name: examine(file.read_text("utf-8")) for file in sorted(folder.glob("*.yaml"))}
    assert time.perf_counter() - started < 20  # some 2 s; the machine may be busy
    assert {name: each.errors for name, each in found.items() if each.errors} == {}
    assert all(each.document is not None for each in found.values())


def test_table_that_tells_too_much_apart_is_refused_not_enumerated() -> None:
    rows = ", ".join(
        f"{{ages: '{n}', stays: '{n}', temporaries: '{n}', {extra}: true, value: 1%, "
        "source: text, clause: 例}"
        for n in range(1, 60)
        for extra in ("civil_servant", "late_filing")
    )
    start = SOUND.index("          ratio:")
    end = SOUND.index("          adjust:\n            - when: {classes: [referral,")
    found = problems(f"{SOUND[:start]}          ratio: [{rows}]\n{SOUND[end:]}")
    assert any("split it by `when`" in each.text for each in found)
