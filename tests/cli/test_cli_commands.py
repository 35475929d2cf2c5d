"""The operator's commands and the undo, on a running network."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from uuid import uuid4

import pytest
from command import run_yidi

from infra.cli.audit_rates import compared
from infra.local.supervisor import Network
from yidi.common.v1 import types_pb2
from yidi.settlement.v1 import audit_pb2

SAMPLES = Path(__file__).parents[2] / "infra" / "local" / "samples"
Yidi = Callable[..., "CompletedProcess[str]"]
AS = ("--as", "institution/H11010100001")
_numbers = count(1)


@pytest.fixture
def visit(tmp_path: Path) -> Path:
    """An outpatient visit to 北京 insured in 广东, with a request id and a bill of its own."""
    return new_visit(tmp_path)


def new_visit(folder: Path) -> Path:
    request = json.loads((SAMPLES / "outpatient_beijing.json").read_text("utf-8"))
    number = f"{folder.name}-{next(_numbers)}"
    request["requestId"] = f"test-{number}"
    request["bill"]["reference"]["visitId"] = number
    file = folder / f"visit-{number}.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    return file


def settle(yidi: Any, visit: Path) -> str:
    ran = yidi("settle", "--file", str(visit), "--json")
    assert ran.returncode == 0, ran.stderr
    return str(json.loads(ran.stdout)["settlementId"])


def told(ran: Any, code: int = 0) -> Any:
    assert ran.returncode == code, ran.stderr
    return json.loads(ran.stdout)


def shown(yidi: Any, settlement_id: str) -> Any:
    return told(yidi("settlement", "show", settlement_id, "--json"))


def final(yidi: Any, settlement_id: str, *, undone: bool = False) -> Any:
    """What is shown once recovery is done: asked again until then, for at most a minute."""
    until = datetime.now(UTC) + timedelta(seconds=60)
    while True:
        facts = shown(yidi, settlement_id)
        done = facts["state"] == "completed" and (
            not undone or facts["sentence"].startswith("已由冲正")
        )
        if done or datetime.now(UTC) > until:
            return facts


def states(facts: Any) -> list[str]:
    """The states of a trail; when its detail gets to the nation is another matter."""
    actions = [entry["action"] for entry in facts["trail"]]
    return [action for action in actions if action != "detail uploaded"]


@pytest.fixture
def without_guangdong(network: Network, tmp_path: Path) -> Yidi:
    """`yidi` where nothing of 广东 listens any more: at the discard port nobody does."""
    state = json.loads((network.home / "state.json").read_text("utf-8"))
    for process in state["processes"]:
        if process["site"] == "440000":
            process["internal"] = "127.0.0.1:9"
    home = tmp_path / "home"
    home.mkdir()
    (home / "state.json").write_text(json.dumps(state), encoding="utf-8")
    return partial(run_yidi, home)


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (("audit", "queue"), {"cases"}),
        (("audit", "rates"), {"start_date", "end_date", "sites"}),
        (("detail", "list"), {"total", "late", "uploads"}),
        (("settlement", "in-doubt"), {"total", "settlements"}),
    ],
)
def test_a_province_that_is_down_stops_no_other(
    without_guangdong: Yidi, command: tuple[str, str], keys: set[str]
) -> None:
    """The others are told, the one that does not answer is named, and the exit code says so."""
    ran = without_guangdong(*command, "--json")
    assert told(ran, 1).keys() == keys
    assert "440000 广东 没有答复" in ran.stderr
    assert "110000" not in ran.stderr
    words = without_guangdong(*command)
    assert (words.returncode, "No case" in words.stdout + words.stderr) == (1, False)
    alone = without_guangdong(*command, "--site", "440000")
    assert (alone.returncode, alone.stdout) == (1, "")
    assert without_guangdong(*command, "--site", "110000").returncode == 0


def test_a_question_that_is_wrong_everywhere_is_refused_once(yidi: Any) -> None:
    ran = yidi("audit", "rates", "--start", "2026-02-30", "--json")
    assert (ran.returncode, ran.stdout, ran.stderr.count("DAY_INVALID")) == (1, "", 1)


def test_what_the_audit_found_at_the_door_is_told(yidi: Any, visit: Path) -> None:
    """S3-17: with the quote, with the settlement, and wherever it is looked at; lines say why."""
    request = json.loads(visit.read_text("utf-8"))
    bill = request["bill"]
    for line_id in ("twice-1", "twice-2"):
        bill["lines"].append(
            {
                "lineId": line_id,
                "itemCode": "未对照",
                "nationalCode": "0025010101510000-SAMPLE",
                "unitPriceMicroYuan": "1000000",
                "quantityE4": "10000",
                "amountFen": "100",
            }
        )
    bill["totalFen"] = str(int(bill["totalFen"]) + 200)
    visit.write_text(json.dumps(request), encoding="utf-8")
    wanted = "提示 DUP-EXAM（明细 twice-1、twice-2）："
    for command in ("quote", "settle"):
        words = yidi(command, "--file", str(visit), columns=200).stdout
        assert wanted in words
        assert "请核对" in words
        assert "先行自付" in words.partition("项目 item")[2].partition("路径 route")[0]
    settlement_id = settle(yidi, visit)
    assert wanted in yidi("settlement", "show", settlement_id).stdout
    [found] = shown(yidi, settlement_id)["findings"]
    assert (found["rule"], found["line_ids"]) == ("DUP-EXAM", ["twice-1", "twice-2"])
    until = datetime.now(UTC) + timedelta(seconds=60)
    while settlement_id not in _queued(yidi, "finding"):
        assert datetime.now(UTC) < until
    assert settlement_id in _queued(yidi, "智能审核提示")
    assert settlement_id not in _queued(yidi, "picked")
    assert yidi("audit", "queue", "--kind", "any").returncode == 2


def _queued(yidi: Any, kind: str) -> set[str]:
    cases = told(yidi("audit", "queue", "--kind", kind, "--json"))["cases"]
    return {one["settlement_id"] for one in cases}


def test_show_says_who_has_a_settlement_and_every_hop(yidi: Any, visit: Path) -> None:
    """Issue: `yidi settlement show ID` with every hop (site, role, duration, outcome, reason)."""
    settlement_id = settle(yidi, visit)
    facts = shown(yidi, settlement_id)
    assert facts["state"] == "completed"
    assert facts["journals"] == {"care": True, "nation": True, "insured": True}
    assert facts["sentence"] == "已完成，三方账本均已记录。"
    assert {(hop["site"], hop["role"]) for hop in facts["hops"]} >= {
        ("110000", "catalog"),
        ("110000", "settlement"),
        ("100000", "relay"),
        ("440000", "policy"),
        ("440000", "settlement"),
    }
    assert all(hop["duration_ms"] > 0 for hop in facts["hops"] if hop["hop"] != "care_close")
    assert states(facts) == ["open", "COMPLETED"]
    words = yidi("settlement", "show", settlement_id, "--site", "110000").stdout
    assert "三方账本均已记录" in words
    assert "参保地入账" in words


def test_show_of_an_unknown_or_malformed_id_is_a_refusal(yidi: Any) -> None:
    missing = yidi("settlement", "show", str(uuid4()))
    assert missing.returncode == 1
    assert "SETTLEMENT_NOT_FOUND" in missing.stderr
    assert "MESSAGE_INVALID" in yidi("settlement", "show", "nonsense").stderr
    assert yidi("settlement", "show", str(uuid4()), "--site", "310000").returncode == 2


def test_in_doubt_is_listed_shown_and_recovered(yidi: Any, visit: Path, answers_lost: Any) -> None:
    """PROTOCOL §10 line 6: decided, the answer lost before the nation."""
    with answers_lost():
        ran = yidi("settle", "--file", str(visit))
        assert ran.returncode == 1
        assert "OUTCOME_PENDING" in ran.stderr
        listed = told(yidi("settlement", "in-doubt", "--json"))
        assert listed["total"] == 1
        (row,) = listed["settlements"]
        assert (row["care_site"], row["insured_site"]) == ("110000", "440000")
        assert row["age_s"] > 0
        words = yidi("settlement", "in-doubt", columns=120).stdout
        assert row["settlement_id"] in words
        facts = shown(yidi, row["settlement_id"])
    assert facts["state"] == "in_doubt"
    assert facts["journals"] == {"care": False, "nation": False, "insured": True}
    assert facts["sentence"].startswith("结果待确认：参保地已记账，")
    assert facts["sentence"].endswith("请勿重复收费。")
    after = final(yidi, row["settlement_id"])
    assert after["sentence"] == "已完成，三方账本均已记录。"
    assert after["attempts"] >= 1
    assert states(after) == ["open", "IN_DOUBT", "COMPLETED"]
    assert told(yidi("settlement", "in-doubt", "--json")) == {"total": 0, "settlements": []}
    assert "Nothing is open" in yidi("settlement", "in-doubt").stdout


def test_reverse_in_doubt_is_carried_out_by_recovery(
    yidi: Any, visit: Path, answers_lost: Any
) -> None:
    """PROTOCOL §2: cancel_requested first, then the undo whose id is on the original."""
    with answers_lost():
        assert yidi("settle", "--file", str(visit)).returncode == 1
        (row,) = told(yidi("settlement", "in-doubt", "--json"))["settlements"]
        ran = yidi("reverse", row["settlement_id"])
        assert ran.returncode == 1
        assert "OUTCOME_PENDING" in ran.stderr
        assert "已请求撤销" in shown(yidi, row["settlement_id"])["sentence"]
    facts = final(yidi, row["settlement_id"], undone=True)
    assert facts["sentence"] == f"已由冲正 {facts['undone_by']} 撤销。"
    undo = shown(yidi, facts["undone_by"])
    assert undo["kind"] == "reversal"
    assert undo["undoes"] == row["settlement_id"]
    assert yidi("verify").returncode == 0


def test_show_while_an_undo_is_named_and_not_yet_begun(yidi: Any, sql: Any, visit: Path) -> None:
    """PROTOCOL §2: its id is on the original before it has a row; without a row nothing is sent."""
    settlement_id = settle(yidi, visit)
    row = "settlement.care_journal SET cancel_requested = $2, undone_by = $3 WHERE settlement_id"
    # Recovery leaves it alone: it has no next attempt.
    sql("110000", f"UPDATE {row} = $1", settlement_id, True, uuid4())
    try:
        facts = shown(yidi, settlement_id)
    finally:
        sql("110000", f"UPDATE {row} = $1", settlement_id, False, None)
    assert facts["sentence"] == "已完成，并已请求撤销：即将自动撤销，请勿重复退费。"


@pytest.mark.parametrize(("command", "kind"), [("reverse", "冲正"), ("refund", "退费")])
def test_undo_gives_everything_back_once(yidi: Any, visit: Path, command: str, kind: str) -> None:
    settlement_id = settle(yidi, visit)
    settled = told(yidi("settle", "--file", str(visit), "--json"))["result"]["amounts"]
    call = (command, settlement_id, *AS, "--reason", "测试", "--request-id", f"undo-{uuid4()}")
    first = told(yidi(*call, "--json"))
    assert first["undoes"] == settlement_id
    amounts = first["result"]["amounts"]
    assert {n: -int(v) for n, v in amounts.items()} == {n: int(v) for n, v in settled.items()}
    again = yidi(*call)
    assert again.returncode == 0, again.stderr
    for text in (f"{kind}已完成", settlement_id, first["settlementId"]):
        assert text in again.stdout
    other = yidi(command, settlement_id, "--site", "110000", *AS)
    assert other.returncode == 1
    assert "ALREADY_UNDONE" in other.stderr


def test_undo_as_another_institution_finds_nothing(yidi: Any, visit: Path) -> None:
    ran = yidi("refund", settle(yidi, visit), "--as", "institution/H11010500002")
    assert ran.returncode == 1
    assert "NOT_FOUND" in ran.stderr
    assert yidi("refund", str(uuid4()), "--as", "nobody").returncode != 0


@pytest.mark.parametrize(
    ("column", "altered", "missing"),
    [
        ("outcome_digest", "sha256(outcome_digest)", []),
        ("business_day", "business_day - 400", ["nation"]),
    ],
)
def test_verify_names_the_settlement_that_differs(
    yidi: Any, sql: Any, visit: Path, column: str, altered: str, missing: list[str]
) -> None:
    """PROTOCOL §4: drill-down by hour and id."""
    settlement_id = settle(yidi, visit)
    row = f"relay.outcome WHERE settlement_id = '{settlement_id}'"
    was = sql("100000", f"SELECT {column} FROM {row}")
    change = row.replace("WHERE", f"SET {column} = {altered} WHERE")
    sql("100000", f"UPDATE {change}")
    try:
        found = told(yidi("verify", "--json"), 1)
        words = yidi("verify").stdout
    finally:
        sql("100000", f"UPDATE {row.replace('WHERE', f'SET {column} = $1 WHERE')}", was)
    assert found["ok"] is False
    (pair,) = [pair for pair in found["pairs"] if pair["differences"]]
    assert pair["settlements"] == [{"settlement_id": settlement_id, "missing": missing}]
    assert settlement_id in words
    assert told(yidi("verify", "--json"))["ok"] is True


def test_an_altered_balance_is_found_by_rebuild_and_by_verify(
    yidi: Any, sql: Any, visit: Path
) -> None:
    """PROTOCOL §3: accumulators are only ever sums of signed deltas."""
    settle(yidi, visit)
    before = told(yidi("accumulators", "rebuild", "--check", "--json"))
    assert before["ok"] is True
    assert {site["site"] for site in before["sites"]} == {"110000", "440000", "370000"}
    one = "settlement.accumulator SET pooled_used_fen = pooled_used_fen"
    sql("440000", f"UPDATE {one} + 7")
    try:
        found = told(yidi("accumulators", "rebuild", "--check", "--site", "440000", "--json"), 1)
        checked = told(yidi("verify", "--json"), 1)
        words = yidi("accumulators", "rebuild", "--check")
    finally:
        sql("440000", f"UPDATE {one} - 7")
    (site,) = found["sites"]
    assert site["accumulators"] == len(site["differences"])
    assert "pooled_used_fen" in site["differences"][0]["text"]
    assert [pair for pair in checked["pairs"] if pair["differences"]] == []
    (breach, *_) = next(s for s in checked["sites"] if s["site"] == "440000")["breaches"]
    assert breach["side"] == "insured"
    assert breach["invariant"] == "sum_of_deltas"
    assert words.returncode == 1
    assert "不一致" in words.stdout
    assert "一致" in yidi("accumulators", "rebuild", "--check").stdout


def test_rebuild_without_check_changes_nothing_and_says_why(yidi: Any) -> None:
    ran = yidi("accumulators", "rebuild")
    assert ran.returncode == 2
    assert "--check" in ran.stderr


def test_post_adds_once_and_refuses_another_content(yidi: Any, sql: Any, tmp_path: Path) -> None:
    """PROTOCOL §3: openings and costs settled elsewhere come in with their own id and source."""
    person = str(uuid4())
    item: dict[str, Any] = {
        "id": str(uuid4()),
        "insuredArea": "440800",
        "insurance": "INSURANCE_TYPE_EMPLOYEE",
        "personId": person,
        "deltas": [{"period": "2026", "pooledUsedFen": "12300"}],
        "source": "手工报销 测试",
    }
    file = tmp_path / "posting.json"
    file.write_text(json.dumps({"items": [item]}), encoding="utf-8")
    for _ in range(2):
        answer = told(yidi("accumulators", "post", "--file", str(file), "--json"))
        assert answer == {"results": [{"id": item["id"], "posted": True}]}
    read = "SELECT sum(pooled_used_fen)::bigint FROM settlement.accumulator WHERE person_id = $1"
    assert sql("440000", read, person) == 12300
    item["deltas"][0]["pooledUsedFen"] = "1"
    file.write_text(json.dumps({"items": [item]}), encoding="utf-8")
    ran = yidi("accumulators", "post", "--file", str(file))
    assert ran.returncode == 1
    assert "EXTERNAL_CONFLICT" in ran.stderr
    assert yidi("accumulators", "rebuild", "--check").returncode == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("{", "is not a BatchPostExternalRequest"),
        ('{"items": [{"insuredArea": "310000"}]}', "nothing was posted"),
    ],
)
def test_post_says_what_is_wrong_with_the_file(
    yidi: Any, tmp_path: Path, content: str | None, said: str
) -> None:
    file = tmp_path / "posting.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    ran = yidi("accumulators", "post", "--file", str(file))
    assert ran.returncode == 2
    assert said in ran.stderr


def test_downtime_is_announced_once_and_listed(yidi: Any) -> None:
    """PROTOCOL §5: downtime windows are in the directory. 济南 has no settlement in these tests."""
    window = ("--from", "2099-01-01 00:00", "--until", "2099-01-02 06:00")
    call = ("downtime", "announce", "370100", *window, "--notice", "系统升级")
    call += ("--request-id", "notice-1")
    first = told(yidi(*call, "--json"))
    assert (first["site"], first["area"]) == ("370000", "370100")
    assert first["start_time"] == "2098-12-31T16:00:00Z"
    assert told(yidi(*call, "--json")) == first
    listed = told(yidi("downtime", "list", "--json"))
    assert [down["notice"] for down in listed["downtimes"]] == ["系统升级"]
    assert listed["revision"] == first["revision"]
    assert "系统升级" in yidi("downtime", "list").stdout
    past = yidi("downtime", "announce", "370000", "--until", "2020-01-01 00:00", "--notice", "晚了")
    assert past.returncode == 1
    assert "downtime.end_time" in past.stderr
    unknown = yidi("downtime", "announce", "310000", *window, "--notice", "无")
    assert unknown.returncode == 2
    vague = yidi("downtime", "announce", "370000", "--until", "tomorrow", "--notice", "无")
    assert "Asia/Shanghai" in vague.stderr


def test_a_declared_injury_is_audited_and_its_stay_uploaded(
    yidi: Any, sql: Any, tmp_path: Path
) -> None:
    """规程 第三十五条, 第三十九条, N24-21: over three sites, carried out beside the settlements."""
    request = json.loads((SAMPLES / "inpatient_beijing.json").read_text("utf-8"))
    request["requestId"] = f"test-{tmp_path.name}-audit"
    request["bill"]["reference"]["visitId"] = f"{tmp_path.name}-audit"
    request["bill"]["visit"] |= {"injury": "ANSWER_YES", "thirdParty": "ANSWER_NO"}
    file = tmp_path / "injury.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    settlement_id = settle(yidi, file)
    until = datetime.now(UTC) + timedelta(seconds=60)
    done = "SELECT count(*) FROM settlement.detail_upload WHERE uploaded_at IS NOT NULL AND "
    while not sql("110000", f"{done} settlement_id = $1::uuid", settlement_id):
        assert datetime.now(UTC) < until
    kept = "SELECT count(*) FROM relay.stay_detail WHERE settlement_id = $1::uuid"
    assert sql("100000", kept, settlement_id) == 1
    waiting = told(yidi("detail", "list", "--json"))["uploads"]
    assert settlement_id not in {one["settlement_id"] for one in waiting}
    assert yidi("detail", "list", "--late").returncode == 0

    [case] = [
        one
        for one in told(yidi("audit", "queue", "--json"))["cases"]
        if one["settlement_id"] == settlement_id
    ]
    assert (case["site"], case["kind"]) == ("110000", "AUDIT_CASE_KIND_INJURY_DECLARATION")
    words = yidi("audit", "show", case["case_id"]).stdout
    assert "外伤承诺核查" in words
    assert "待核查" in words
    picked = told(yidi("audit", "pick", settlement_id, "--json"))
    assert picked["kind"] == "AUDIT_CASE_KIND_PICKED"
    done = told(yidi("audit", "decide", picked["case_id"], "--deduct", "0", "--json"))
    assert done["state"] == "AUDIT_CASE_STATE_CONFIRMED"
    unexplained = yidi("audit", "decide", case["case_id"], "--deduct", "1.5")
    assert unexplained.returncode == 1
    assert "AUDIT_DECISION_REFUSED" in unexplained.stderr
    assert yidi("audit", "decide", case["case_id"], "--deduct", "1,5").returncode == 2
    decided = yidi(
        "audit", "decide", case["case_id"], "--deduct", "1.5", "--reason", "有第三方责任"
    )
    assert "审核扣款" in decided.stdout
    remote = told(yidi("audit", "rates", "--site", "110000", "--json"))["sites"]["110000"]["remote"]
    assert remote["deducted_fen"] >= 150
    assert "异地合计" in yidi("audit", "rates").stdout
    assert yidi("verify").returncode == 0


def _rate(route: Any, fund_fen: int, deducted_fen: int) -> Any:
    return audit_pb2.DeductionRate(
        route=route, settlements=1, fund_total_fen=fund_fen, deducted_fen=deducted_fen
    )


@pytest.mark.parametrize(
    ("local", "remote", "lower"),
    [
        ((100_00, 10_00), (200_00, 9_99), True),
        ((100_00, 10_00), (200_00, 10_00), False),
        ((100_00, 10_00), (0, 0), False),
        ((0, 0), (200_00, 0), False),
        ((100_00, 0), (200_00, 0), False),
    ],
)
def test_remote_is_clearly_lower_below_half_of_the_local_rate(
    local: tuple[int, int], remote: tuple[int, int], lower: bool
) -> None:
    """N24-21; both remote routes count as one."""
    rates = [
        _rate(types_pb2.ROUTE_LOCAL, *local),
        _rate(types_pb2.ROUTE_IN_PROVINCE, *remote),
        _rate(types_pb2.ROUTE_CROSS_PROVINCE, 0, 0),
    ]
    assert compared(rates).clearly_lower is lower
