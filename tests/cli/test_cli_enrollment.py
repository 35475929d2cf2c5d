"""`yidi enrollment` on the running network: whole files, one person, one change."""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from itertools import islice
from pathlib import Path

import pytest

from infra.cli import enrollment
from infra.local.people import COUNTIES, SyntheticPerson, make_people
from infra.runtime.clock import SystemClock, business_day

AREA = "440800"
_TODAY = business_day(SystemClock().now_ms())
TODAY, BEFORE, SOON, AT_LAST = (str(_TODAY + timedelta(days=days)) for days in (0, 9, 10, 40))
HEADER = "psn_name\tcertno\tinsutype\tpsn_type\tbegndate\tcard_no\tec_token\tpsn_no"


@pytest.fixture(scope="module")
def people() -> list[SyntheticPerson]:
    made = make_people(
        random.Random("yidi enrollment"),
        counties=COUNTIES[AREA],
        born_from=date(1940, 1, 1),
        born_until=date(2005, 12, 31),
    )
    return list(islice(made, 5))


@pytest.fixture(scope="module")
def file(people, tmp_path_factory) -> Path:
    """Three employees, a resident by a former code and a row that is none."""
    rows = [
        f"{one.name}\t{one.id_number}\t{code}\t{'15' if code == '380' else '11'}\t2020-01-01"
        f"\t{one.social_security_card}\t{one.electronic_token}\tCLI00{number}"
        for number, (one, code) in enumerate(
            zip(people, ["310", "310", "310", "380", "999"], strict=True)
        )
    ]
    path = tmp_path_factory.mktemp("import") / "people.tsv"
    path.write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    return path


def test_a_file_is_imported_and_its_rejected_rows_are_told(yidi, file, people):
    done = yidi("enrollment", "import", str(file), "--area", AREA)
    assert done.returncode == 1
    assert "已先清点文件：5 行，职工 3，居民 1" in done.stderr
    assert "已完成 people.tsv：5 行，新增 4，已有 0，未收 1" in done.stdout
    import_id = done.stdout.split()[-1]
    assert f"yidi enrollment rejected {import_id}" in done.stderr
    again = yidi("enrollment", "import", str(file), "--area", AREA, "--json")
    assert json.loads(again.stdout)["importId"] == import_id
    shown = yidi("enrollment", "imports", import_id)
    assert (shown.returncode, shown.stdout) == (0, done.stdout)
    rejected = yidi("enrollment", "rejected", import_id)
    assert rejected.stdout == "第 6 行  insutype  险种代码不认识\n"
    as_json = json.loads(yidi("enrollment", "rejected", import_id, "--json").stdout)
    assert as_json == {"rows": [{"line": "6", "column": "insutype", "cause": "险种代码不认识"}]}
    printed = "".join(one.stdout + one.stderr for one in (done, again, shown, rejected))
    assert not [one for one in people if one.name in printed or one.id_number in printed]


def test_control_totals_given_must_tie(yidi, file, people, tmp_path):
    path = tmp_path / "two.tsv"
    path.write_text("\n".join(file.read_text().split("\n")[:3]), encoding="utf-8")
    asked = ("enrollment", "import", str(path), "--area", AREA)
    wrong = yidi(*asked, "--rows", "3", "--employees", "3", "--residents", "0")
    assert wrong.returncode == 1
    assert "行数应为 3，实为 2；职工应为 3，实为 2" in wrong.stderr
    half = yidi(*asked, "--rows", "3")
    assert (half.returncode, "given together" in half.stderr) == (2, True)
    beside = tmp_path / "two.tsv.totals.json"
    beside.write_text('{"rows": 2, "employees": 2, "residents": 0}')
    done = yidi(*asked)
    assert done.returncode == 0
    assert "清点" not in done.stderr


def test_what_is_no_import(yidi, tmp_path):
    unknown = yidi("enrollment", "imports", "0198f000-0000-7000-8000-000000000001")
    assert (unknown.returncode, "没有这次导入" in unknown.stderr) == (1, True)
    missing = yidi("enrollment", "import", str(tmp_path / "none.csv"), "--area", AREA)
    assert (missing.returncode, "cannot read" in missing.stderr) == (2, True)
    (tmp_path / "empty.csv").write_bytes(b"")
    empty = yidi("enrollment", "import", str(tmp_path / "empty.csv"), "--area", AREA)
    assert (empty.returncode, "IMPORT_INVALID" in empty.stderr) == (1, True)
    nowhere = yidi("enrollment", "import", str(tmp_path / "empty.csv"), "--area", "999999")
    assert nowhere.returncode in (1, 2)


def test_a_stopped_command_says_how_to_go_on(yidi, file, monkeypatch):
    async def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(enrollment, "send", stopped)
    done = yidi("enrollment", "import", str(file), "--area", AREA)
    assert (done.returncode, "再次运行同一命令" in done.stderr) == (130, True)


def test_a_person_is_shown_masked_and_changed(yidi, file, people):
    yidi("enrollment", "import", str(file), "--area", AREA)
    person = people[0]
    by_number = yidi("enrollment", "show", "--area", AREA, "--personal-number", "CLI000")
    credential = ("--credential", f"id_card:{person.id_number}", "--name", person.name)
    by_card = yidi("enrollment", "show", "--area", AREA, *credential)
    assert by_number.stdout == by_card.stdout
    assert f"{person.name[0]}*" in by_card.stdout
    assert "职工基本医疗保险  在职" in by_card.stdout
    assert "2020-01-01 起  正常参保" in by_card.stdout
    assert "人员编号" in by_card.stdout
    shown = yidi("enrollment", "show", "--area", AREA, *credential, "--json")
    found = json.loads(shown.stdout)
    asked = ("enrollment", "change", found["personId"], "--area", AREA)
    asked += ("--insurance", "employee", "--day", SOON, "--version", found["version"])
    changed = yidi(*asked, "--suspend", "--request-id", "cli-change-1")
    assert changed.returncode == 0, changed.stderr
    assert f"2020-01-01 至 {BEFORE}  正常参保" in changed.stdout
    assert f"{SOON} 起  暂停参保" in changed.stdout
    assert yidi(*asked, "--suspend", "--request-id", "cli-change-1").stdout == changed.stdout
    stale = yidi(*asked, "--resume")
    assert (stale.returncode, "PARTICIPANT_CHANGED_MEANWHILE" in stale.stderr) == (1, True)
    printed = "".join(one.stdout for one in (by_number, by_card, shown, changed))
    assert person.name not in printed
    assert person.id_number not in printed


def test_every_change_reaches_the_desk(yidi, file, people):
    """Each option makes the change it names: the record after it shows it."""
    yidi("enrollment", "import", str(file), "--area", AREA)
    owner, relative = (
        json.loads(
            yidi("enrollment", "show", "--area", AREA, "--personal-number", number, "--json").stdout
        )
        for number in ("CLI001", "CLI002")
    )
    version = int(owner["version"])

    def change(*options: str, day: str = TODAY) -> dict:
        nonlocal version
        asked = ("enrollment", "change", owner["personId"], "--area", AREA)
        asked += ("--insurance", "employee", "--day", day, "--version", str(version))
        done = yidi(*asked, *options, "--json")
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        assert int(record["version"]) == version + 1
        version += 1
        return record

    relation = change("--person-class", "retired", "--civil-servant")["relations"][0]
    assert relation["personClass"] == "PERSON_CLASS_RETIRED"
    assert relation["civilServant"]
    relation = change("--qualify", f"M03900:{AT_LAST}::H44080200001|H44080200002")["relations"][0]
    (granted,) = relation["qualifications"]
    assert (granted["grantedArea"], granted["endDate"]) == (AREA, AT_LAST)
    assert granted["chosenInstitutions"] == ["H44080200001", "H44080200002"]
    relation = change("--disqualify", "M03900", day=SOON)["relations"][0]
    assert relation["qualifications"][0]["endDate"] == BEFORE
    replaced = change("--new-card", "ZCLI00001")["credentials"]
    assert [one.get("replacedOn") for one in replaced].count(TODAY) == 1
    change("--new-personal-number", "CLI901")
    sharing = change("--share-with", relative["personId"])["sharings"]
    assert sharing[0]["userPersonId"] == relative["personId"]
    assert (
        change("--unshare-with", relative["personId"], day=SOON)["sharings"][0]["endDate"] == BEFORE
    )
    relations = change("--transfer-to", "440100", "--person-class", "retired", day=SOON)[
        "relations"
    ]
    assert {one["area"] for one in relations} == {AREA, "440100"}


@pytest.mark.parametrize(
    "options",
    [(), ("--suspend", "--end"), ("--new-card", "AAAA", "--new-personal-number", "BBBBBB")],
)
def test_exactly_one_change(yidi, options):
    asked = ("enrollment", "change", "0198f000-0000-7000-8000-000000000001", "--area", AREA)
    asked += ("--insurance", "employee", "--day", SOON, "--version", "1")
    done = yidi(*asked, *options)
    assert (done.returncode, "exactly one change" in done.stderr) == (2, True)


def test_show_wants_one_key(yidi):
    done = yidi("enrollment", "show", "--area", AREA)
    assert (done.returncode, "say one of" in done.stderr) == (2, True)
    done = yidi("enrollment", "show", "--area", AREA, "--credential", "passport:1234567")
    assert done.returncode == 2
    assert "1234567" not in done.stderr
