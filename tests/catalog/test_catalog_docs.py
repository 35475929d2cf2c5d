"""docs/catalog.md: what it shows is read by the code, and its bill comes out as it says."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from pathlib import Path

from services.catalog.audit_rule_keys import KIND_OF
from services.catalog.audit_rules import NATIONAL, RULES, examine_audit_rules
from services.catalog.domain.catalogue import Catalogue, by_code
from services.catalog.domain.import_layouts import CSV_COLUMNS, Layout, table_of
from services.catalog.domain.import_rows import RowReader
from services.catalog.domain.item import InsuranceType, Level
from services.catalog.domain.split import split_bill
from services.catalog.load import read_folder
from services.catalog.samples.generate import FOLDER
from yidi.catalog.v1 import catalog_pb2
from yidi.common.v1 import types_pb2

TEXT = (Path(__file__).parents[2] / "docs" / "catalog.md").read_text("utf-8")
BILL = re.compile(r"^\| (\S+) \(.*?\) \| (\S+-SAMPLE) \|(.*)\|$", re.MULTILINE)
DAY = date(2026, 11, 20)


def block(kind: str) -> str:
    """The block of the page that is marked so."""
    [found] = re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_list_on_the_page_can_be_imported() -> None:
    header, content = block("csv list").split("\n", 1)
    part = RowReader().read(content.encode(), 2, table_of(Layout.CSV, header), 0, "110000")
    assert (part.rejected, len(part.rows)) == ([], 3)


def test_every_column_is_on_the_page() -> None:
    assert [name for name in CSV_COLUMNS if f"`{name}`" not in TEXT] == []


def test_the_rules_on_the_page_can_be_used(tmp_path: Path) -> None:
    (tmp_path / NATIONAL).write_bytes((RULES / NATIONAL).read_bytes())
    (tmp_path / "999900.yaml").write_text(block("yaml rules"), "utf-8")
    examined = examine_audit_rules(tmp_path)
    assert [*map(str, examined.problems)] == []
    [rule] = examined.rules["999900"]
    assert rule.code == "FREQ-GLUCOSE"


def fen(yuan: str) -> int:
    return int(Decimal(yuan) * 100)


def test_the_bill_on_the_page_comes_out_as_it_says() -> None:
    rows = [
        (name, code, [cell.strip() for cell in cells.split("|")])
        for name, code, cells in BILL.findall(TEXT)
    ]
    assert len(rows) == 7
    approved = {"": types_pb2.ANSWER_UNSPECIFIED, "yes": types_pb2.ANSWER_YES}
    lines = [
        catalog_pb2.FeeLine(
            line_id=str(number),
            item_code=f"N{number}",
            national_code=code,
            unit_price_micro_yuan=fen(price) * 10_000,
            quantity_e4=int(quantity) * 10_000,
            amount_fen=fen(amount),
            hospital_approved=approved.get(word, types_pb2.ANSWER_NO),
        )
        for number, (_, code, (price, quantity, word, amount, *_)) in enumerate(rows, 1)
    ]
    items = read_folder(FOLDER / "110000").publication.items
    names = {item.national_code: item.name for item in items}
    assert [names[code] for _, code, _ in rows] == [name for name, _, _ in rows]
    catalogue = Catalogue(1, "110000", "", date(2023, 1, 1), by_code(items))
    split = split_bill(
        lines,
        total_fen=sum(line.amount_fen for line in lines),
        day=DAY,
        rules=catalogue.rules(InsuranceType.EMPLOYEE, Level.THREE),
        institution="H11010100001",
        mapped={},
    )
    for line, (name, _, cells) in zip(split.lines, rows, strict=True):
        parts = (
            line.full_self_pay_fen,
            line.over_limit_fen,
            line.first_self_pay_fen,
            line.in_scope_fen,
        )
        assert parts == tuple(map(fen, cells[4:])), name


def test_every_kind_of_rule_is_on_the_page() -> None:
    assert [kind for kind in KIND_OF.values() if f"`{kind}`" not in TEXT] == []
