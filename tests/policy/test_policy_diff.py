"""What `diff` says changed, for whom."""

from __future__ import annotations

import pytest
from policy_texts import SOUND, changed

from services.policy.domain.differing import Difference, differences
from services.policy.reading import examine


def compared(after: str, before: str = SOUND) -> list[Difference]:
    documents = [examine(text).document for text in (before, after)]
    assert documents[0] is not None
    assert documents[1] is not None
    return differences(documents[0], documents[1])


def test_the_same_document_differs_in_nothing() -> None:
    assert compared(SOUND) == []


def test_order_of_rows_is_no_change() -> None:
    lines = SOUND.splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if "levels: [two]" in line)
    lines[number], lines[number + 1] = lines[number + 1], lines[number]
    assert compared("".join(lines)) == []


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("value: 600元", "value: 1.2万元", "普通住院起付线（二级）由600元改为1.2万元。"),
        ("value: 90%", "value: 92.5%", "普通住院统筹基金支付比例（退休）由90%改为92.5%。"),
        (
            "minus: 20个百分点",
            "times: 80%",
            "普通住院统筹基金调整（限其他临时外出）由减20个百分点改为乘以80%。",
        ),
        (
            'stays: "2-"',
            'stays: "2"',
            "普通住院起付线调整适用范围由年度内第2次及以上住院改为年度内第2次住院。",
        ),
        (
            "value: 30万元",
            "value: unlimited",
            "普通住院统筹基金年度累计支付限额（各类待遇合计）由30万元改为不封顶。",
        ),
        (
            "value: 400元",
            "value: not_stated",
            "普通住院起付线（一级及以下、其他、未定级）由400元改为未载明。",
        ),
        (
            "due: each_stay",
            "due: topped_up",
            "普通住院起付线收取方式由每次收取改为年度内累计补差。",
        ),
        ('"2024-01-01"', '"2025-01-01"', "生效日期由2024-01-01改为2025-01-01。"),
        (
            "provenance: official",
            "provenance: secondary",
            "来源text由《示例通知》官方原文example.org改为《示例通知》转载example.org。",
        ),
        (
            "clause: 转诊",
            "clause: 第六条",
            "普通住院统筹基金调整（限转诊、指定机构转诊、急诊抢救）的依据由转诊改为第六条。",
        ),
        ("name: 统筹基金", "name: 基本基金", "普通住院基本基金名称由统筹基金改为基本基金。"),
        (
            "counts_stays: true",
            "counts_stays: false",
            "普通住院住院次数由计入住院次数改为不计住院次数。",
        ),
    ],
)
def test_one_change_is_told_in_one_sentence(before: str, after: str, told: str) -> None:
    assert [each.text for each in compared(changed((before, after)))] == [told]


def test_rows_added_and_removed() -> None:
    text = changed(
        ("levels: [one, other, unrated]", "levels: [one]"),
        ("levels: [two]", "levels: [two, other, unrated]"),
    )
    assert [(each.kind, each.whom, each.before, each.after) for each in compared(text)] == [
        ("added", "一级及以下", "", "400元"),
        ("added", "二级、其他、未定级", "", "600元"),
        ("removed", "一级及以下、其他、未定级", "400元", ""),
        ("removed", "二级", "600元", ""),
    ]


LARGE = """\
      - fund:
          code: hifob_pay
          name: 大额补助
          of: over_cap
          ratio: [{value: 90%, source: text, clause: 例}]
"""


def test_stage_added_and_removed() -> None:
    added = compared(SOUND + LARGE)
    assert [each.text for each in added] == [
        "新增普通住院大额补助一步。",
        "新增普通住院大额补助支付比例：90%。",
    ]
    assert added[0].path == ("benefits", "inpatient", "stages", 2, "fund")
    (removed,) = compared(SOUND, before=SOUND + LARGE)
    assert (removed.kind, removed.text) == ("removed", "删除普通住院大额补助一步。")


def test_stages_in_another_order() -> None:
    stage = """\
      - first_pay:
          rows: [{value: 10%, source: text, clause: 例}]
"""
    first = changed(("      - deductible:\n", stage + "      - deductible:\n"))
    then = changed(("      - fund:\n", stage + "      - fund:\n"))
    (moved,) = compared(then, before=first)
    assert moved.kind == "moved"
    assert moved.text == "普通住院次序由先行自付→起付线→统筹基金改为起付线→先行自付→统筹基金。"


def test_floor_brackets_and_diseases() -> None:
    more = """\
          brackets: {over: year}
          floor: {of: total, rows: [{value: 40%, source: text, clause: 例}]}
  chronic:
    care_types: [chronic]
    diseases: {covered: [M03900], otherwise: refused, source: text, clause: 目录}
    no_funds: {source: text, clause: 例}
"""
    told = [each.text for each in compared(SOUND + more)]
    assert told == [
        "普通住院统筹基金分段由单次含起付线的符合范围费用改为年度累计含起付线的符合范围费用。",
        "新增普通住院统筹基金保底：40%。",
        "新增门诊慢特病待遇。",
        "新增门诊慢特病病种M03900：支付。",
        "新增门诊慢特病未列病种：其他病种不予直接结算。",
        "新增门诊慢特病：基金不支付。",
    ]
    (lost,) = compared(SOUND + more.replace("M03900", "M01600, M03900"), before=SOUND + more)
    assert lost.text == "新增门诊慢特病病种M01600：支付。"


def test_two_real_documents_differ_in_sentences() -> None:
    from services.policy.loader import DOCUMENTS

    texts = [
        (DOCUMENTS / f"{name}.yaml").read_text("utf-8") for name in ("370800_310", "440800_310")
    ]
    told = compared(texts[1], before=texts[0])
    assert len(told) > 10
    assert all(each.text.endswith("。") for each in told)
    assert all("None" not in each.text for each in told)
