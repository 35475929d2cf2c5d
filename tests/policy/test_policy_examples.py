"""Published worked examples, to the fen, through the code of `yidi policy evaluate`.

`kind` says what the source gives: `published` its amounts; `derived` a rule, from which the amounts
follow; `trap` arithmetic that contradicts itself (`printed` holds what is printed); `identity` no
more than sums.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from infra.cli.main import app
from services.policy.domain.document import Document
from services.policy.evaluating import answer, evaluate
from services.policy.loader import DOCUMENTS
from services.policy.reading import examine, read_document

EXAMPLES = Path(__file__).parents[1] / "data" / "policy" / "worked_examples"
FOUND = {
    path.stem.upper(): yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(EXAMPLES.glob("*.yaml"))
}
ACCEPTANCE = {
    "WE-01", "WE-02", "WE-04", "WE-05", "WE-06", "WE-08", "WE-14", "WE-16", "WE-32", "WE-34",
}  # fmt: skip
CASES = [
    pytest.param(case, id=f"{name} {case['name']}")
    for name, example in FOUND.items()
    for case in example["cases"]
    if case["policy"] is not None
]


def policy_file(name: str) -> Path:
    """`library/…` is one of our own documents, `policies/…` one with the example's numbers."""
    folder, _, file = name.partition("/")
    return (DOCUMENTS if folder == "library" else EXAMPLES / folder) / file


def computed(document: Document, visits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers to the visits in turn, each from what the one before left."""
    answers: list[dict[str, Any]] = []
    for visit in visits:
        data = dict(visit["case"])
        if answers:
            data["accumulators_fen"] = answers[-1]["accumulators_fen"]
        given, benefit = evaluate(document, data)
        answers.append(answer(document, given, benefit))
    return answers


@pytest.mark.parametrize("case", CASES)
def test_example(case: dict[str, Any]) -> None:
    """S0-26, S0-33, S0-34, S1-26..32, S2-20..22, S4-16..18, S4-58 and the published arithmetic."""
    document = read_document(policy_file(case["policy"]))
    answers = computed(document, case["visits"])
    for visit, got in zip(case["visits"], answers, strict=True):
        assert visit["expect"]
        assert {name: got[name] for name in visit["expect"]} == visit["expect"]


def test_all_examples_are_here_with_their_sources() -> None:
    """Ten published, one trap, one identity, the rest derived; every one names its source."""
    kinds = {name: example["kind"] for name, example in FOUND.items()}
    assert {name for name, kind in kinds.items() if kind == "published"} == ACCEPTANCE
    assert {name for name, kind in kinds.items() if kind == "derived"} == {
        "WE-26", "WE-27", "WE-28", "WE-29", "WE-35", "WE-37", "JINING-RESIDENTS",
    }  # fmt: skip
    assert (kinds["WE-13"], kinds["WE-18"]) == ("trap", "identity")
    for example in FOUND.values():
        assert example["source"]["title"]
        assert {"date", "url"} & set(example["source"])


def test_documents_of_the_examples_may_be_published() -> None:
    """The examples are data alone: their documents pass the same check as the library."""
    for path in sorted((EXAMPLES / "policies").glob("*.yaml")):
        assert examine(path.read_text(encoding="utf-8")).errors == (), path.name


def test_trap_gives_the_computed_value_whatever_the_source_prints() -> None:
    """WE-13: the deductible's factor is 5 % in the text and 12 % in the arithmetic. The cap makes
    the payment the same; what lies under the cap differs, and only the arithmetic's figure gives
    the uncapped sum that is printed."""
    example = FOUND["WE-13"]
    printed = example["printed"]
    (got,) = computed(
        read_document(policy_file(example["cases"][0]["policy"])), example["cases"][0]["visits"]
    )
    assert (got["fund_total_fen"], got["cash_fen"]) == (
        printed["fund_total_fen"],
        printed["self_fen"],
    )
    text = (EXAMPLES / "policies" / "chengdu_2012_310.yaml").read_text(encoding="utf-8")
    before = []
    for deductible in ("970.08元", "404.20元"):
        changed = text.replace("970.08元", deductible).replace("value: 46336元", "value: unlimited")
        document = examine(changed).document
        assert document is not None
        (uncapped,) = computed(document, example["cases"][0]["visits"])
        before.append(uncapped["fund_total_fen"])
    assert before == [printed["fund_before_cap_fen"], 5_065_643]


def test_real_bill_keeps_the_identity() -> None:
    """WE-18 publishes three sums and nothing between them: they must add up, and the visit's facts
    must be ones that a document can be asked with, where the same identity holds."""
    example = FOUND["WE-18"]
    printed = example["printed"]
    assert printed["fund_total_fen"] + printed["self_fen"] == printed["total_fen"]
    (visit,) = example["cases"][0]["visits"]
    assert visit["case"]["amounts_fen"]["total"] == printed["total_fen"]
    document = read_document(EXAMPLES / "policies" / "heilongjiang_310.yaml")
    asked = visit["case"] | {"area": document.area, "admitted": None, "discharged": None}
    given, benefit = evaluate(document, {k: v for k, v in asked.items() if v is not None})
    case = given.case
    got = (case.person_class, case.age, case.basis, case.grade)
    assert got == ("retired", 81, "filed", "three_a")
    assert benefit.fund_total_fen + benefit.account_fen + benefit.cash_fen == printed["total_fen"]


def test_item_level_first_pay_reaches_the_policy_as_one_sum() -> None:
    """WE-32: items are first paid at 10, 30 and 50 % before the policy is asked. The policy part
    (deductible, retired own share of 11.2 %) is computed; the artificial organ, of which half is
    first paid and the rest wholly the fund's, is added as the item level leaves it."""
    example = FOUND["WE-32"]
    items = {item["name"]: item for item in example["items"]}
    first = {
        name: item["amount_fen"] * int(item["first_self_pay"].rstrip("%")) // 100
        for name, item in items.items()
    }
    (visit,) = example["cases"][0]["visits"]
    amounts = visit["case"]["amounts_fen"]
    organ = items["人工器官"]["amount_fen"]
    assert amounts["full_self_pay"] == first["完全自付"]
    assert amounts["first_self_pay"] == first["乙类"] + first["放宽项目"]
    (got,) = computed(read_document(policy_file(example["cases"][0]["policy"])), [visit])
    printed = example["printed"]
    assert amounts["total"] + organ == printed["total_fen"]
    assert got["fund_total_fen"] + organ - first["人工器官"] == printed["fund_total_fen"]
    assert got["cash_fen"] + first["人工器官"] == printed["self_fen"]


def test_points_are_not_a_multiple() -> None:
    """WE-29: 80 % less 10 points is 70 %, not 72 %; less 20 points 60 %, not 64 %."""
    paid = {
        case["name"]: case["visits"][0]["expect"]["fund_total_fen"]
        for case in FOUND["WE-29"]["cases"]
    }
    assert paid["转诊70%"] == 700_000 != 720_000
    assert paid["其他临时60%"] == 600_000 != 640_000


@pytest.mark.parametrize("name", ["WE-02", "WE-06", "WE-28", "WE-34"])
def test_command_line_gives_the_same(name: str, tmp_path: Path) -> None:
    """`yidi policy evaluate --json` answers what the example states."""
    for case in FOUND[name]["cases"]:
        visit = case["visits"][0]
        file = tmp_path / "case.json"
        file.write_text(json.dumps(visit["case"], ensure_ascii=False), encoding="utf-8")
        arguments = ["policy", "evaluate", "--policy", str(policy_file(case["policy"]))]
        result = CliRunner().invoke(app, [*arguments, "--case", str(file), "--json"])
        assert result.exit_code == 0, result.output
        got = json.loads(result.output)
        assert {name: got[name] for name in visit["expect"]} == visit["expect"]
        assert got["trace"]
        assert got["policy"]["version"]
