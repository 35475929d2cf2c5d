"""Items as rows of our CSV.

`python -m services.catalog.samples.written SITE FILE [ROWS]` writes the full sample list of a
province, as long as wanted.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from itertools import chain
from pathlib import Path

from services.catalog.domain import import_cells as cells
from services.catalog.domain.import_layouts import CSV_COLUMNS
from services.catalog.domain.item import InsuranceType, Item
from services.catalog.load import read_folder
from services.catalog.samples.full import full_items, many_items
from services.catalog.samples.generate import FOLDER

_LIST_TYPES = {one: code for code, one in cells.LIST_TYPES.items()}


def write_items(file: Path, items: Iterable[Item]) -> None:
    """Write a list as `yidi catalog import` reads it."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        writer.writerows(map(_row, items))


def _row(item: Item) -> list[object]:
    said: dict[str, object] = {
        "national_code": item.national_code,
        "name": item.name,
        "catalog_class": f"{item.catalog_class:02d}",
        "fee_category": f"{item.fee_category:02d}",
        **{
            f"first_self_pay_{code}": _decimal(item.first_self_pay_bp[one], cells.PERCENT_DECIMALS)
            for code, one in cells.INSURANCES.items()
        },
        **{
            f"limit_{code}": _yuan(item.limits_micro_yuan.get(level))
            for code, level in cells.LEVELS.items()
        },
        "limited_use": item.limited_use,
        "effective_from": item.effective_from.isoformat(),
        "effective_to": "" if item.effective_to == date.max else item.effective_to.isoformat(),
        "list_type": _LIST_TYPES[item.list_type],
        "bands": ";".join(
            f"{_yuan(band.up_to_micro_yuan)}:{_shares(band.first_self_pay_bp)}"
            for band in item.bands
        ),
        "day_limit": _units(item.day_limit_e4),
        "visit_limit": _units(item.visit_limit_e4),
        "dosage_form": item.dosage_form,
        "specification": item.specification,
        "unit": item.unit,
        "negotiated": int(item.negotiated),
        "centrally_purchased": int(item.centrally_purchased),
        "preparing_institution": item.preparing_institution,
    }
    return [said[name] for name in CSV_COLUMNS]


def _shares(by_insurance: Mapping[InsuranceType, int]) -> str:
    return "/".join(
        _decimal(by_insurance[one], cells.PERCENT_DECIMALS) for one in cells.INSURANCES.values()
    )


def _yuan(micro: int | None) -> str:
    return "" if micro is None else _decimal(micro, cells.YUAN_DECIMALS)


def _units(quantity_e4: int | None) -> str:
    return "" if quantity_e4 is None else _decimal(quantity_e4, cells.UNIT_DECIMALS)


def _decimal(value: int, decimals: int) -> str:
    """A number given in units of its last decimal place."""
    whole, part = divmod(value, 10**decimals)
    return f"{whole}.{part:0{decimals}d}".rstrip("0").rstrip(".")


def main() -> None:
    """Write a list; province, file and rows are the arguments."""
    site, file, *rows = sys.argv[1:]
    small = read_folder(FOLDER / site).publication.items
    made = many_items(site, int(rows[0]) - len(small)) if rows else full_items(site)
    write_items(Path(file), chain(small, made))


if __name__ == "__main__":
    main()
