"""`yidi catalog` on the running network: seen, searched, changed.

The list is one of 广州 from 2099 on: no bill of another test sees it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

AREA, DAY = "440100", "2099-02-01"
DRUG, STENT = "XA9901-SAMPLE", "C99001-SAMPLE"
LIST = (
    "national_code,name,list_type,catalog_class,fee_category,first_self_pay_310,"
    "first_self_pay_390,limit_1,limit_2,limit_3,limit_4,limit_9,limited_use,effective_from,"
    "effective_to,bands,day_limit,visit_limit,dosage_form,specification,unit,negotiated,"
    "centrally_purchased,preparing_institution\n"
    f"{DRUG},示例命令行药品,101,02,09,10,20,,1.5,,,,限住院,2099-01-01,,,3,,片剂,5mg,盒,1,1,\n"
    f"{STENT},示例命令行支架,301,01,08,0,0,,,,,,,2099-01-01,,,,,,,个,0,0,\n"
)


@pytest.fixture(scope="module")
def listed(yidi, tmp_path_factory) -> None:
    file: Path = tmp_path_factory.mktemp("catalog") / "list.csv"
    file.write_text(LIST, encoding="utf-8")
    asked = ("--area", AREA, "--version", "cli-2099", "--from", "2099-01-01")
    done = yidi("catalog", "import", str(file), *asked)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_list_is_searched_changed_and_looked_at_as_it_was(yidi, listed):
    there = ("--area", AREA, "--day", DAY)
    found = yidi("catalog", "search", "命令行", *there)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [
        f"{STENT}  示例命令行支架  个  医用耗材 甲类",
        f"{DRUG}  示例命令行药品  片剂 5mg 盒  西药中成药 乙类",
    ]
    one = yidi("catalog", "search", "命令行", *there, "--list", "drug", "--json")
    assert [each["nationalCode"] for each in json.loads(one.stdout)["items"]] == [DRUG]
    asked = ("catalog", "change", DRUG, *there, "--reason", "降价")
    wanted = ("--limit", "two:1.2", "--limit", "three:2.05", "--self-pay", "employee:5")
    done = yidi(*asked, *wanted, "--version", "cli-2099", "--request-id", "cli-catalog-1")
    assert done.returncode == 0, done.stderr
    assert "cli-2099+1  2099-02-01 起  1 项  更改：降价" in done.stdout
    again = yidi(*asked, *wanted, "--version", "cli-2099", "--request-id", "cli-catalog-1")
    assert again.stdout == done.stdout
    stale = yidi(*asked, *wanted, "--version", "cli-2099")
    assert (stale.returncode, "CATALOGUE_CHANGED_MEANWHILE" in stale.stderr) == (1, True)
    numbers = [line.split()[:2] for line in _lines(yidi("catalog", "publications", "--area", AREA))]
    assert [name for _, name in numbers] == ["cli-2099+1", "cli-2099"]
    shown = _lines(yidi("catalog", "show", DRUG, "--area", AREA, "--publication", numbers[0][0]))
    assert shown[:6] == [
        f"2099-01-01 至 2099-01-31  {DRUG}  示例命令行药品  片剂 5mg 盒  西药中成药 乙类",
        "  先行自付 职工基本医疗保险 10%，城乡居民基本医疗保险 20%",
        "  限价（元） 二级 1.5",
        "  限定支付 限住院",
        "  每日限量 3",
        "  谈判药品",
    ]
    assert "  限价（元） 二级 1.2，三级 2.05" in shown
    assert "  先行自付 职工基本医疗保险 5%，城乡居民基本医疗保险 20%" in shown
    former = _lines(yidi("catalog", "show", DRUG, "--area", AREA, "--publication", numbers[1][0]))
    assert former[0].startswith(f"2099-01-01 起  {DRUG}")


def test_a_new_item_comes_whole_from_a_file(yidi, listed, tmp_path):
    item = tmp_path / "item.json"
    bands = [
        {"upToMicroYuan": 1_000_000, "selfPay": []},
        {"selfPay": [{"insurance": "INSURANCE_TYPE_EMPLOYEE", "basisPoints": 2_000}]},
    ]
    told = {
        "name": "示例分段耗材",
        "listType": "LIST_TYPE_CONSUMABLE",
        "catalogClass": "CATALOG_CLASS_B",
        "feeCategory": "FEE_CATEGORY_MATERIAL",
        "bands": bands,
    }
    item.write_text(json.dumps(told), encoding="utf-8")
    newest = _lines(yidi("catalog", "publications", "--area", AREA))[0].split()[1]
    asked = ("catalog", "change", "C99002-SAMPLE", "--area", AREA, "--day", DAY, "--version")
    missing = yidi(*asked, newest, "--reason", "新增")
    assert (missing.returncode, "--file" in missing.stderr) == (2, True)
    done = yidi(*asked, newest, "--reason", "新增", "--file", str(item))
    assert done.returncode == 0, done.stderr
    number = done.stdout.split()[0]
    shown = _lines(
        yidi("catalog", "show", "C99002-SAMPLE", "--area", AREA, "--publication", number)
    )
    assert shown[1:3] == [
        "  单价 1 元及以下：不先行自付",
        "  单价 1 元以上：先行自付 职工基本医疗保险 20%",
    ]


def test_a_list_is_tried_and_looked_at(yidi, listed, tmp_path):
    """A dry run says what would change, and nobody sees its list."""
    file = tmp_path / "list.csv"
    file.write_text(LIST.replace("示例命令行支架", "示例命令行导管"), encoding="utf-8")
    asked = ("catalog", "import", str(file), "--area", AREA, "--version", "cli-dry")
    tried = yidi(*asked, "--from", "2099-01-01", "--dry-run")
    [line] = _lines(tried)
    assert "2 行，不能采用 0 行  共 2 项：新增 0，变动 1，" in line
    told = json.loads(yidi("catalog", "imports", line.split()[-1], "--json").stdout)
    assert (told["version"], told["state"]) == ("cli-dry", "LIST_IMPORT_STATE_OPEN")
    assert _lines(yidi("catalog", "imports", line.split()[-1])) == [line]
    assert "cli-dry" not in yidi("catalog", "publications", "--area", AREA).stdout
    assert _lines(yidi("catalog", "rejected", line.split()[-1])) == []


def test_a_broken_list_is_told_row_by_row_and_not_published(yidi, listed, tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(LIST.replace(",101,02,", ",101,07,"), encoding="utf-8")
    asked = ("--area", AREA, "--version", "cli-broken", "--from", "2099-01-01")
    done = yidi("catalog", "import", str(file), *asked)
    assert (done.returncode, "CATALOGUE_IMPORT_REJECTED" in done.stderr) == (1, True)
    import_id = done.stderr.partition("yidi catalog rejected ")[2].split()[0]
    [row] = _lines(yidi("catalog", "rejected", import_id))
    assert row.startswith("表 1 第 2 行  catalog_class  ")
    told = json.loads(yidi("catalog", "rejected", import_id, "--json").stdout)["rows"]
    assert [(each["line"], each["column"]) for each in told] == [("2", "catalog_class")]
    assert "2 行，不能采用 1 行" in yidi("catalog", "imports", import_id).stdout
    assert "cli-broken" not in yidi("catalog", "publications", "--area", AREA).stdout


def test_no_list_comes_from_a_file_of_another_name(yidi, tmp_path):
    asked = ("--area", AREA, "--version", "cli-name", "--from", "2099-01-01")
    for name in ("list.xlsx", "1301.txt", "1312.doc"):
        (tmp_path / name).write_text(LIST, encoding="utf-8")
        done = yidi("catalog", "import", str(tmp_path / name), *asked)
        assert (done.returncode, "文件名应以 1312" in done.stderr) == (1, True)
    unknown = yidi("catalog", "imports", "00000000-0000-4000-8000-000000000000")
    assert (unknown.returncode, "CATALOGUE_IMPORT_STATE_WRONG" in unknown.stderr) == (1, True)


def test_what_cannot_be_read(yidi, tmp_path):
    asked = ("catalog", "change", DRUG, "--area", AREA, "--day", DAY, "--version", "x")
    asked += ("--reason", "x")
    no_file = yidi(*asked, "--file", str(tmp_path / "none.json"))
    assert (no_file.returncode, "cannot read" in no_file.stderr) == (2, True)
    for wrong in (
        *(("--limit", f"two{price}") for price in ("", ":x", ":NaN", ":1e50", ":1e999999999")),
        *(("--self-pay", share) for share in ("nobody:5", "employee:1e9")),
    ):
        assert yidi(*asked, "--file", str(_item(tmp_path)), *wrong).returncode == 2
    for wrong in (str(1 << 63), "-1"):
        assert yidi("catalog", "show", DRUG, "--area", AREA, "--publication", wrong).returncode == 2
    assert yidi("mapping", "approve", str(1 << 63), "--site", "440000").returncode == 2
    no_text = yidi("catalog", "show", "\udcff", "--area", AREA)
    assert (no_text.returncode, "UTF-8" in no_text.stderr) == (2, True)
    none = yidi("catalog", "search", "%_", "--area", AREA, "--day", DAY)
    assert (none.returncode, "没有符合条件的项目" in none.stdout) == (0, True)
    nowhere = yidi("catalog", "publications", "--area", "999999")
    assert (nowhere.returncode, "no area" in nowhere.stderr) == (2, True)


def _item(folder: Path) -> Path:
    file = folder / "item.json"
    file.write_text('{"name": "x"}', encoding="utf-8")
    return file


def _lines(done) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
