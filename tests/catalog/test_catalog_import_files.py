"""Files as people have them: zips and national downloads, whole and broken; nothing half-taken."""

from __future__ import annotations

import zipfile
from datetime import date
from pathlib import Path

import pytest
from list_files import AREA, DAY, HEADER, VERSION, national, row, rows, written

from infra.cli import catalog_files as sending
from infra.cli.catalog_files import ListFile, send
from infra.runtime.errors import Refusal
from services.catalog.domain.import_layouts import NATIONAL_COLUMNS, READ_COLUMNS, Layout
from services.catalog.domain.import_lines import LONGEST_LINE
from services.catalog.domain.item import Level
from services.catalog.store import import_checking as checking
from services.catalog.store import read_snapshot
from yidi.catalog.v1 import listing_pb2


def zipped(path: Path, **members: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(Refusal) as caught:
        list(ListFile.open(path).parts())
    assert caught.value.name == "CATALOGUE_IMPORT_INVALID"
    return caught.value.message


async def test_a_national_download(desk, database, admin, tmp_path, monkeypatch):
    """1312, 1318 and 1319 in a zip: joined by code and day, whatever order they lie in; what is
    read of them is kept no longer than until they are joined."""
    monkeypatch.setattr(checking, "_PORTION", 3)
    monkeypatch.setattr(sending, "PART_BYTES", 500)
    codes = [f"XA{number:04d}" for number in range(9)]
    path = zipped(
        tmp_path / "download.zip",
        **{
            "1319_shares.txt": "".join(
                national(Layout.SHARES, hilist_code=code, selfpay_prop=share, **days) + "\n"
                for share, days in (
                    ("0.1", {"enddate": "2026-06-30"}),
                    ("0.2", {"begndate": "2026-07-01"}),
                )
                for code in codes[:5]
            ),
            "1312_items.txt": "\ufeff"
            + "".join(national(Layout.ITEMS, hilist_code=code) + "\r\n" for code in codes)
            + national(Layout.ITEMS, hilist_code="GONE1", vali_flag="0")
            + "\n",
            "1318_limits.txt": "\t".join(NATIONAL_COLUMNS[Layout.LIMITS])
            + "\n"
            + "".join(
                national(Layout.LIMITS, hilist_code=code) + "\n" for code in (*codes[:5], "GONE1")
            ),
        },
    )
    done = await send(desk, ListFile.open(path), AREA, VERSION, DAY)
    assert done.difference == listing_pb2.ListDifference(codes=9, added=9)
    assert (done.rows, done.rejected) == (10 + 6 + 10, 0)
    [catalogue] = (await read_snapshot(database, None)).catalogues[AREA]
    assert set(catalogue.codes) == set(codes)
    first, second = catalogue.codes["XA0000"]
    assert (first.last_day, second.first_day) == (date(2026, 6, 30), date(2026, 7, 1))
    assert first.limits[Level.THREE - 1] == 12_500_000
    [plain] = catalogue.codes["XA0008"]
    assert plain.last_day == date.max
    stored = await admin.fetch(
        """SELECT first_self_pay_310 AS employee, first_self_pay_390 AS resident FROM catalog.item
           WHERE national_code = 'XA0000' ORDER BY effective_from"""
    )
    assert [tuple(one) for one in stored] == [(1_000, 0), (2_000, 0)]
    assert await admin.fetchval("SELECT count(*) FROM catalog.import_row") == 0


async def test_rows_of_a_download_that_do_not_go_together(desk, database, tmp_path):
    """Each is told by its table and line, and nothing is published."""
    path = zipped(
        tmp_path / "download.zip",
        **{
            "1312.txt": national(Layout.ITEMS) + "\n" + national(Layout.ITEMS) + "\n",
            "1318.txt": national(Layout.LIMITS, hilist_code="OTHER1") + "\n",
            "1319.txt": national(Layout.SHARES, selfpay_prop_type="30") + "\n",
        },
    )
    file = ListFile.open(path)
    with pytest.raises(Refusal, match="有 3 行不能采用"):
        await send(desk, file, AREA, VERSION, DAY, dry_run=True)
    found = await desk.rejected((await desk.start(file)).import_id)
    assert [one[:3] for one in found] == [
        (0, 2, "begndate"),
        (1, 1, "hilist_code"),
        (2, 1, "selfpay_prop_type"),
    ]
    assert (await read_snapshot(database, None)).catalogues == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (row(name="示例").encode("gb18030"), (2, "", "不是 UTF-8")),
        (row(name="长" * 1_000_000).encode(), (2, "", "行过长")),
        (row(first_self_pay_310="五").encode(), (2, "first_self_pay_310", "不带正负号")),
        (row(effective_from="20250101").encode(), (2, "effective_from", "实有的一天")),
        (row(national_code="编码").encode(), (2, "national_code", "字母、数字")),
        (row().encode() + b",", (2, "", "列数多于")),
    ],
)
async def test_a_broken_row_is_reported_and_changes_nothing(
    desk, database, tmp_path, content, expected
):
    path = tmp_path / "items.csv"
    path.write_bytes(HEADER.encode() + b"\n" + content + b"\n")
    file = ListFile.open(path)
    assert all(len(part.content) < 2 * LONGEST_LINE for part in file.parts())
    with pytest.raises(Refusal) as caught:
        await send(desk, file, AREA, VERSION, DAY)
    assert caught.value.name == "CATALOGUE_IMPORT_REJECTED"
    [(_, line, column, cause)] = await desk.rejected((await desk.start(file)).import_id)
    assert ((line, column), expected[2] in cause) == (expected[:2], True)
    assert (await read_snapshot(database, None)).catalogues == {}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "空的"),
        ("编码,名称\n".encode("utf-16"), "UTF-8"),
        (HEADER.replace("bands", "price").encode(), "缺少列 bands"),
        (f"{HEADER},price".encode(), "不认识"),
        (b"x" * 1_000_000, "缺少列"),
    ],
)
def test_a_csv_that_is_none(tmp_path, content, cause):
    path = tmp_path / "items.csv"
    path.write_bytes(content)
    assert cause in refused(path)


def test_a_download_of_one_table(tmp_path):
    """Alone only 1312 is a list; a header names the columns that are there."""
    path = tmp_path / "1312.TXT"
    names = READ_COLUMNS[Layout.ITEMS]
    path.write_text("\t".join(names) + "\n" + "\t".join(names) + "\n", encoding="utf-8")
    file = ListFile.open(path)
    assert file.tables[0].header.split("\t") == list(names)
    assert [part.first_line for part in file.parts()] == [2]
    for name in ("1318.txt", "items.txt", "1312.xlsx"):
        assert refused(path.rename(tmp_path / name))
        path = tmp_path / name


def bomb(size: int) -> bytes:
    return b"0" * size


@pytest.mark.parametrize(
    ("members", "cause"),
    [
        ({"1312.txt": bomb(10_000_000)}, "过大"),
        ({f"1312_{number}.txt": "x" for number in range(5)}, "1 至 4 个文件"),
        ({}, "1 至 4 个文件"),
        ({"1312.txt": "x", "inner.zip": "PK"}, "文件名应以"),
        ({"1312.txt": "x", "readme.txt": "x"}, "文件名应以"),
        ({"../1312.txt": "x"}, "文件夹"),
        ({"a\\1312.txt": "x"}, "文件夹"),
        ({"1312.txt": "x", "items.csv": HEADER}, "单独"),
        ({"1319.txt": "x"}, "1312"),
    ],
)
def test_a_zip_that_is_none(tmp_path, members, cause):
    """Its sizes, the number of its members and their names are looked at before any is read."""
    assert cause in refused(zipped(tmp_path / "list.zip", **members))


def test_a_zip_that_is_broken(tmp_path, monkeypatch):
    """Cut, altered, encrypted, packed otherwise, or larger than it may be."""
    content = "".join(f"{line}\n" for line in [HEADER, *rows(2_000)])
    whole = zipped(tmp_path / "whole.zip", **{"items.csv": content}).read_bytes()
    path = tmp_path / "list.zip"
    for broken in (whole[:-30], b"PK", whole[:200] + bytes(50) + whole[250:]):
        path.write_bytes(broken)
        assert "损坏" in refused(path)
    local, central = whole.index(b"PK\3\4"), whole.rindex(b"PK\1\2")
    for offset, value in ((6, 1), (8, 99)):
        altered = bytearray(whole)
        altered[local + offset] = altered[central + offset + 2] = value
        path.write_bytes(altered)
        assert "不支持" in refused(path)
    monkeypatch.setattr(sending, "MOST_BYTES", 1_000)
    path.write_bytes(whole)
    assert "过大" in refused(path)


def test_a_member_gives_no_more_than_it_states(tmp_path):
    """A zip whose member says that it is small, and is not, is broken and read no further."""
    content = "".join(f"{line}\n" for line in [HEADER, *rows(2_000)]).encode()
    path = zipped(tmp_path / "list.zip", **{"items.csv": content})
    lying = path.read_bytes().replace(len(content).to_bytes(4, "little"), b"\0\4\0\0")
    path.write_bytes(lying)
    assert "损坏" in refused(path)


async def test_a_file_that_changes_while_it_is_sent(desk, database, tmp_path):
    """It is not published; the changed file is an import of its own."""
    file = written(tmp_path / "items.csv", rows(5))

    def change(_: listing_pb2.ListImport) -> None:
        file.path.write_text(f"{HEADER}\n{row()}\n", encoding="utf-8")

    with pytest.raises(Refusal, match="被改动"):
        await send(desk, file, AREA, VERSION, DAY, told=change)
    assert (await read_snapshot(database, None)).catalogues == {}
    done = await send(desk, ListFile.open(file.path), AREA, VERSION, DAY)
    assert (done.state, done.rows) == (listing_pb2.LIST_IMPORT_STATE_PUBLISHED, 1)
