"""A document comes into force: by two people, on a running network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from test_cli_commands import new_visit, settle, told

LIBRARY = Path(__file__).parents[2] / "services" / "policy" / "documents"
AREA, VERSION = "440800", "2023-02-03.test"
NAME = f"{AREA}/employee/{VERSION}"
REVIEWER = ("--as", "reviewer")


def new_version(folder: Path) -> Path:
    """湛江's employees with another share of outpatient care."""
    text = (LIBRARY / f"{AREA}_310.yaml").read_text("utf-8")
    version = next(line for line in text.splitlines() if line.startswith("version: "))
    head, outpatient, rest = text.partition("care_types: [outpatient")
    assert outpatient
    rest = rest.replace("value: 50%", "value: 60%", 1)
    file = folder / "new.yaml"
    changed = head.replace(version, f'version: "{VERSION}"') + outpatient + rest
    assert changed.count("60%") > text.count("60%")
    file.write_text(changed, encoding="utf-8")
    return file


def test_a_document_comes_into_force_by_two_people(yidi: Any, tmp_path: Path) -> None:
    """Publishing: drafted, reviewed by another, published, tried on what was settled, retired."""
    # Others of this folder have used up what outpatient care of the sample's own patient may cost.
    visit = new_visit(tmp_path)
    text = visit.read_text("utf-8")
    visit.write_text(text.replace("zhanjiang-retired", "zhanjiang-employed"), encoding="utf-8")
    settlement_id = settle(yidi, visit)
    drafted = told(yidi("policy", "draft", str(new_version(tmp_path)), "--json"))["policy"]
    draft_id = drafted["draftId"]
    assert drafted["state"] == "POLICY_STATE_DRAFT"

    own = yidi("policy", "review", draft_id, "--approve", "--comment", "已核对")
    assert own.returncode == 1
    assert "政策文件须由另一人办理此操作" in own.stderr
    assert "起草人不能复核自己起草的文件" in own.stderr.replace("\n", "").replace(" ", "")
    early = yidi("policy", "publish", draft_id)
    assert (early.returncode, "草稿" in early.stderr) == (1, True)
    reviewed = yidi("policy", "review", draft_id, "--approve", "--comment", "已核对", *REVIEWER)
    assert reviewed.returncode == 0, reviewed.stderr
    assert reviewed.stdout.startswith("复核通过，可以发布：湛江市职工")
    assert "已复核  reviewer  已核对" in reviewed.stdout

    published = yidi("policy", "publish", draft_id, "--activate-at", "2099-01-01 06:00")
    assert published.returncode == 0, published.stderr
    assert published.stdout.startswith("已发布，2099-01-01 06:00 起启用")
    assert NAME in published.stdout
    listed = told(yidi("policy", "list", "--area", AREA, "--json"))["policies"]
    states = {each["version"]: each["state"] for each in listed}
    assert states[VERSION] == "POLICY_STATE_PUBLISHED"
    assert NAME in yidi("policy", "list", columns=200).stdout

    tried = told(yidi("policy", "simulate", NAME, "--json"))
    assert settlement_id in {each["settlementId"] for each in tried["differences"]}
    gained = sum(
        int(each["after"]["amounts"]["fundTotalFen"]) - int(each["before"]["fundTotalFen"])
        for each in tried["differences"]
    )
    assert gained > 0
    assert all(each["reproduced"] for each in tried["differences"])
    funds = sum(int(fund["fen"]) for fund in tried["fundChanges"])
    own = int(tried.get("accountChangeFen", 0)) + int(tried["cashChangeFen"])
    assert funds == -own == gained
    words = yidi("policy", "simulate", NAME, "--limit", "1", columns=200).stdout
    assert "试算 1 笔已办结算" in words

    retiring = ("policy", "retire", NAME, "--from", "2026-01-01", "--comment", "改用新版本")
    same = yidi(*retiring)
    assert (same.returncode, "须由另一人办理" in same.stderr) == (1, True)
    retired = yidi(*retiring, *REVIEWER)
    assert retired.stdout.startswith("已废止，2026-01-01 起的业务不再适用"), retired.stderr
    shown = yidi("policy", "show", draft_id, columns=200).stdout
    assert shown.startswith("# 湛江市 职工")
    history = [line.split()[2:4] for line in shown.splitlines() if line.startswith("  2")]
    assert history == [
        ["草稿", "local"],
        ["已复核", "reviewer"],
        ["已发布", "local"],
        ["已废止", "reviewer"],
    ]


def test_a_draft_with_errors_is_not_stored_and_coverage_is_told(yidi: Any, tmp_path: Path) -> None:
    file = new_version(tmp_path)
    text = file.read_text("utf-8").replace("value: 60%", "value: 60", 1)
    file.write_text(text.replace(VERSION, "wrong"), encoding="utf-8")
    ran = yidi("policy", "draft", str(file))
    assert ran.returncode == 1
    assert "错误" in ran.stdout
    assert "没有起草" in ran.stdout
    assert json.loads(yidi("policy", "draft", str(file), "--json").stdout)["findings"]
    listed = told(yidi("policy", "list", "--json"))["policies"]
    assert "wrong" not in {each["version"] for each in listed}
    covered = told(yidi("policy", "coverage", "--area", AREA, "--json"))["policies"]
    assert {each["policy"]["insurance"] for each in covered} == {
        "INSURANCE_TYPE_EMPLOYEE",
        "INSURANCE_TYPE_RESIDENT",
    }
    assert "普通住院、外伤住院" in yidi("policy", "coverage", columns=200).stdout
    stranger = yidi("policy", "list", "--as", "nobody")
    assert stranger.returncode == 2
    assert "there are local, reviewer" in stranger.stderr
    for name in ("nonsense", "440800/rural/1"):
        assert yidi("policy", "show", name).returncode == 2
    missing = yidi("policy", "show", "440800/310/none")
    assert (missing.returncode, "没有找到政策文件" in missing.stderr) == (1, True)
