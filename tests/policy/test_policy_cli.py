"""`yidi policy`: no server, no database (issue 4, part 5)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from policy_texts import CASE, SOUND, changed, run
from rich.cells import set_cell_size

from services.policy.domain.schema import schema_text


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(SOUND, encoding="utf-8")
    return file


def given(folder: Path, **changes: Any) -> Path:
    """A case file: `CASE` with fields replaced; None leaves one out."""
    data = {key: value for key, value in {**CASE, **changes}.items() if value is not None}
    file = folder / "case.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


def computed(policy: Path, case: Path) -> Any:
    ran = run("policy", "evaluate", "--policy", str(policy), "--case", str(case), "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_evaluate_answers_the_published_keys(policy: Path, tmp_path: Path) -> None:
    told = computed(policy, given(tmp_path))
    assert list(told) == [
        *("deductible_fen", "remote_first_pay_fen", "funds", "fund_total_fen", "account_fen"),
        *("cash_fen", "ratio_self_pay_fen", "over_cap_fen", "accumulators_fen", "trace", "policy"),
    ]
    assert told["deductible_fen"] == 45_000
    assert told["funds"] == {"hifp_pay": 1_833_750}
    assert told["fund_total_fen"] == 1_833_750
    assert told["ratio_self_pay_fen"] == 611_250
    assert told["cash_fen"] == 2_600_000 - 1_833_750
    assert told["accumulators_fen"]["stay_count"] == 2
    assert told["policy"]["version"] == "1"
    assert len(bytes.fromhex(told["policy"]["hash"])) == 32
    assert told["policy"]["provenance"] == "official"


def test_trace_has_stage_row_clause_and_sentence(policy: Path, tmp_path: Path) -> None:
    trace = computed(policy, given(tmp_path))["trace"]
    bracket = next(each for each in trace if each["stage"] == "hifp_pay" and "changes" in each)
    assert bracket["row"] == (
        "inpatient/hifp_pay/ratio[persons=employed|self_employed|bankrupt_unit]"
    )
    assert (bracket["value"], bracket["unit"]) == (8500, "basis_points")
    assert (bracket["input_fen"], bracket["result_fen"]) == (2_445_000, 1_833_750)
    assert bracket["clause"] == "示例通知 在职"
    assert bracket["changes"][0]["operation"] == "minus"
    assert bracket["changes"][0]["clause"] == "示例通知 转诊"
    assert "75%" in bracket["text"]


def test_accumulators_of_the_answer_go_into_the_next_case(policy: Path, tmp_path: Path) -> None:
    first = computed(policy, given(tmp_path, nth_admission=None))
    assert first["deductible_fen"] == 90_000
    again = given(tmp_path, nth_admission=None, accumulators_fen=first["accumulators_fen"])
    then = computed(policy, again)
    assert then["deductible_fen"] == 45_000  # the second stay is counted
    assert then["accumulators_fen"]["deductible_paid_fen"] == 135_000
    assert then["accumulators_fen"]["pooled_used_fen"] == first["fund_total_fen"] + 1_833_750


def test_a_benefit_with_a_counter_keeps_its_accumulators_apart(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    outpatient = """\
  outpatient:
    care_types: [outpatient]
    counter: clinic
    stages:
      - deductible: {due: topped_up, rows: [{value: 500元, source: text, clause: 例}]}
      - fund:
          code: hifp_pay
          name: 统筹基金
          of: remaining
          ratio: [{value: 60%, source: text, clause: 例}]
          caps: [{counts: own, rows: [{value: 2000元, source: text, clause: 例}]}]
"""
    policy.write_text(SOUND + outpatient, encoding="utf-8")
    amounts = {"total": 100_000, "in_scope": 100_000}
    case = {"care_type": "outpatient", "nth_admission": None, "amounts_fen": amounts}
    first = computed(policy, given(tmp_path, **case))
    assert first["accumulators_fen"]["clinic"]["deductible_paid_fen"] == 50_000
    used = first["accumulators_fen"]
    then = computed(policy, given(tmp_path, **case, accumulators_fen=used))
    assert then["deductible_fen"] == 0
    used["clinic"]["pooled_used_fen"] = 190_000
    capped = computed(policy, given(tmp_path, **case, accumulators_fen=used))
    assert capped["fund_total_fen"] == 10_000
    assert capped["over_cap_fen"] > 0


def test_account_pays_from_its_balance(policy: Path, tmp_path: Path) -> None:
    text = SOUND + "account: {source: text, clause: 个人账户}\n"
    policy.write_text(text, encoding="utf-8")
    told = computed(policy, given(tmp_path, account_balance_fen=100_000))
    assert told["account_fen"] == 100_000
    assert told["cash_fen"] == 2_600_000 - 1_833_750 - 100_000
    none = given(tmp_path, account_balance_fen=100_000, use_account=False)
    assert computed(policy, none)["account_fen"] == 0


@pytest.mark.parametrize(
    "left_out",
    [("area", "insurance"), ("route", "disease"), ("admitted", "discharged"), ("nth_admission",)],
)
def test_what_the_document_does_not_ask_for_may_be_left_out(
    policy: Path, tmp_path: Path, left_out: tuple[str, ...]
) -> None:
    told = computed(policy, given(tmp_path, **dict.fromkeys(left_out)))
    assert told["deductible_fen"] == (90_000 if "nth_admission" in left_out else 45_000)


def test_deductible_level_may_differ_from_settlement_level(policy: Path, tmp_path: Path) -> None:
    levels = {"level": "three", "deductible_level": "one"}
    assert computed(policy, given(tmp_path, institution=levels))["deductible_fen"] == 20_000


def test_case_in_yaml_is_the_same_case(policy: Path, tmp_path: Path) -> None:
    case = tmp_path / "case.yaml"
    case.write_text(
        """\
person: {class: employed}
institution: {level: three}
benefit_class: referral
care_type: inpatient
admitted: 2024-03-01
discharged: 2024-03-09
nth_admission: 2
amounts_fen: {total: 2600000, full_self_pay: 60000, first_self_pay: 50000, in_scope: 2490000}
""",
        encoding="utf-8",
    )
    assert computed(policy, case) == computed(policy, given(tmp_path))


def test_chronic_disease_that_is_not_opened_is_claimed_at_home(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    chronic = """\
  chronic:
    care_types: [chronic]
    diseases: {covered: [M05300, M03900], otherwise: refused, source: text, clause: 目录}
    stages:
      - fund:
          code: hifp_pay
          name: 统筹基金
          of: remaining
          ratio: [{value: 60%, source: text, clause: 例}]
"""
    policy.write_text(SOUND + chronic, encoding="utf-8")
    case = {"care_type": "chronic", "nth_admission": None}
    assert computed(policy, given(tmp_path, **case, disease="M03900"))["fund_total_fen"] > 0
    arguments = ("policy", "evaluate", "--policy", str(policy), "--case")
    # 慢阻肺 was opened at the end of 2024 (医保办发〔2024〕19号).
    ran = run(*arguments, str(given(tmp_path, **case, disease="M05300")))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "DISEASE_NOT_OPENED" in ran.stderr
    assert "pay in full and claim at home" in ran.stderr
    home = given(tmp_path, **case, disease="M05300", route="local", benefit_class="local")
    assert computed(policy, home)["fund_total_fen"] > 0
    ran = run(*arguments, str(given(tmp_path, **case, disease="M01600")))
    assert "DISEASE_NOT_COVERED" in ran.stderr


def test_explain_prints_the_waterfall_aligned(policy: Path, tmp_path: Path) -> None:
    case = str(given(tmp_path))
    ran = run("policy", "evaluate", "--policy", str(policy), "--case", case, "--explain")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    steps = [line for line in lines if line.startswith(("起付线 ", "统筹基金 ", "先行自付 "))]
    assert len(steps) >= 4
    for line in steps:
        # Each number ends at its column, however wide the name before it is.
        for column in (32, 48):
            start = set_cell_size(line, column)
            assert start[-1].isdigit(), line
            assert not line[len(start)].strip(), line
    whole = "".join(ran.stdout.split())
    for told in ("24,450.00", "18,337.50", "（85%－10个百分点）75%", "示例通知转诊", "官方"):
        assert told in whole, told
    assert "现金cash7,662.50" in whole


def test_check_says_file_line_and_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(changed(("levels: [two]", "levels: [twoo]")), encoding="utf-8")
    ran = run("policy", "check", str(file))
    assert ran.returncode == 1
    assert ran.stdout.startswith(
        f"{file}:17: error: benefits.inpatient.stages[0].deductible.rows[1].levels[0]: "
    )
    assert "'one', 'two', 'three'" in ran.stdout


def test_check_of_a_folder_with_warnings_only_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "sound.yaml").write_text(SOUND, encoding="utf-8")
    doubtful = changed(("value: 85%", "value: 0.85%"), ('version: "1"', 'version: "2"'))
    (tmp_path / "doubtful.yaml").write_text(doubtful, encoding="utf-8")
    ran = run("policy", "check", str(tmp_path), "--json")
    assert ran.returncode == 0
    facts = json.loads(ran.stdout)
    assert (facts["files"], facts["errors"]) == (2, 0)
    assert facts["warnings"] == len(facts["problems"]) > 0
    assert {Path(each["file"]).name for each in facts["problems"]} == {"doubtful.yaml"}
    assert set(facts["problems"][0]) == {"file", "severity", "line", "path", "text", "clause"}


def test_check_finds_one_version_in_two_files(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(SOUND, encoding="utf-8")
    ran = run("policy", "check", str(tmp_path))
    assert ran.returncode == 1
    assert "999900 employee 1 stands in" in ran.stdout


def test_diff_prints_sentences_or_data(policy: Path, tmp_path: Path) -> None:
    after = tmp_path / "after.yaml"
    after.write_text(changed(("value: 90%", "value: 92%")), encoding="utf-8")
    ran = run("policy", "diff", str(policy), str(after))
    assert (ran.returncode, ran.stdout) == (0, "~ 普通住院统筹基金支付比例（退休）由90%改为92%。\n")
    ran = run("policy", "diff", str(policy), str(after), "--json")
    (change,) = json.loads(ran.stdout)["changes"]
    assert change["path"] == "benefits.inpatient.stages[1].fund.ratio[0]"
    assert (change["kind"], change["whom"]) == ("changed", "退休")
    assert (change["before"], change["after"]) == ("90%", "92%")
    same = run("policy", "diff", str(policy), str(policy))
    assert (same.returncode, same.stdout) == (0, "两份文件没有差别。\n")


def test_schema_is_printed() -> None:
    ran = run("policy", "schema")
    assert ran.stdout == schema_text()
    schema = json.loads(ran.stdout)
    assert schema["additionalProperties"] is False
    assert {"area", "insurance", "benefits", "sources"} <= set(schema["required"])


def test_no_server_code_is_loaded(policy: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv = ['yidi', 'policy', 'evaluate', '--policy', sys.argv[1], '--case', "
        "sys.argv[2], '--json']\n"
        "from infra.cli.main import main\n"
        "try: main()\n"
        "finally: print([m for m in ('grpc', 'sqlalchemy', 'asyncpg') if m in sys.modules],"
        " file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(policy), str(given(tmp_path))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.strip() == "[]"
