"""Golden bills by situation: each line's amounts worked by hand (S0-25, S0-37, S1-24, S1-25)."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from charging import HOSPITAL, Charge, catalogue, item, parts, split

from services.catalog.domain import bill as faults
from services.catalog.domain.bill import BillSplit, Parts
from services.catalog.domain.catalogue import Catalogue
from services.catalog.domain.item import (
    Band,
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    Level,
    ListType,
)
from services.catalog.domain.mapping import MappingSpell, MappingState
from services.catalog.domain.rule import SplitRule

FOLDER = Path(__file__).parents[1] / "data" / "catalog"
CLASSES = {"甲": CatalogClass.A, "乙": CatalogClass.B, "自费": CatalogClass.SELF_PAID}
LEVELS = dict(zip("12349", Level, strict=True))
INSURANCES = {"310": InsuranceType.EMPLOYEE, "390": InsuranceType.RESIDENT}
ANSWERS = {"": 0, "no": 1, "yes": 2}


def _read(file: Path) -> Any:
    # Every scalar stays a text, so that amounts are decimals as they are written.
    return yaml.load(file.read_text("utf-8"), yaml.BaseLoader)


def _scaled(text: str, scale: int) -> int:
    value = Decimal(text) * scale
    assert value == int(value), f"{text} has too many decimals"
    return int(value)


def _fen(text: str) -> int:
    return _scaled(text, 100)


def _shares(text: str) -> dict[InsuranceType, int]:
    return dict(zip(InsuranceType, (_scaled(share, 100) for share in text.split("/")), strict=True))


def _band(text: str) -> Band:
    *up_to, shares = text.split()
    return Band(_scaled(up_to[0], 1_000_000) if up_to else None, _shares(shares))


def _item(code: str, said: dict[str, Any]) -> Item:
    limits = {
        LEVELS[level]: _scaled(limit, 1_000_000) for level, limit in said.get("limits", {}).items()
    }
    return item(
        code,
        list_type=ListType[said.get("type", "DRUG")],
        catalog_class=CLASSES[said["class"]],
        fee_category=FeeCategory(int(said.get("category", 9))),
        first_self_pay_bp=_shares(said.get("share", "0/0")),
        bands=tuple(map(_band, said.get("bands", ()))),
        limits_micro_yuan=limits,
        limited_use=said.get("limited_use", ""),
        day_limit_e4=_scaled(said["day"], 10_000) if "day" in said else None,
        visit_limit_e4=_scaled(said["visit"], 10_000) if "visit" in said else None,
        preparing_institution=said.get("maker", ""),
        effective_from=date.fromisoformat(said.get("from", "2023-01-01")),
        effective_to=date.fromisoformat(said.get("to", "9999-12-31")),
    )


def _lists() -> dict[str, Catalogue]:
    return {
        name: catalogue(
            *(
                _item(code, revision)
                for code, said in listed.items()
                for revision in (said if isinstance(said, list) else [said])
            )
        )
        for name, listed in _read(FOLDER / "lists.yaml").items()
    }


LISTS = _lists()
SITUATIONS = [
    pytest.param(situation, id=f"{file.stem}: {situation['name']}")
    for file in sorted((FOLDER / "bills").glob("*.yaml"))
    for situation in _read(file)
]


def _charge(number: int, said: dict[str, str]) -> Charge:
    return Charge(
        line_id=said.get("id", str(number)),
        item_code=said.get("item", "own"),
        national_code=said["code"],
        unit_price_micro_yuan=_scaled(said["price"], 1_000_000),
        quantity_e4=_scaled(said["qty"], 10_000),
        amount_fen=_fen(said["amount"]),
        hospital_approved=ANSWERS[said.get("approved", "")],
        charged_on=said.get("on", ""),
        original_line_id=said.get("cites", ""),
    )


def _spell(said: list[str]) -> MappingSpell:
    code, first_day, last_day, state = said
    return MappingSpell(
        code, date.fromisoformat(first_day), date.fromisoformat(last_day), MappingState[state]
    )


def _split(situation: dict[str, Any]) -> BillSplit:
    institution = situation.get("institution", HOSPITAL)
    return split(
        [_charge(number, said) for number, said in enumerate(situation["lines"], start=1)],
        LISTS[situation.get("list", "care")],
        insurance=INSURANCES[situation.get("insurance", "310")],
        level=LEVELS[situation.get("level", "3")],
        institution=None if institution == "none" else institution,
        mapped={
            own: tuple(map(_spell, spells)) for own, spells in situation.get("mapping", {}).items()
        },
        total_fen=_fen(situation["total"]) if "total" in situation else None,
    )


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_situation_comes_to_what_was_worked_by_hand(situation: dict[str, Any]) -> None:
    if "refused" in situation:
        expected = dict(situation["refused"])
        with pytest.raises(getattr(faults, expected.pop("error"))) as caught:
            _split(situation)
        assert {name: str(getattr(caught.value, name)) for name in expected} == expected
        return
    found = _split(situation)
    for said, one in zip(situation["lines"], found.lines, strict=True):
        assert parts(one) == tuple(map(_fen, said["parts"])), one
        assert [SplitRule(rule).name for rule in one.rules] == said["rules"]
        assert one.national_code == said.get("mapped", said["code"])
        if "reason" in said:
            assert one.reason == said["reason"]
    if "whole" in situation:
        assert found.parts == Parts(*map(_fen, situation["whole"]))
    if "categories" in situation:
        assert dict(found.categories) == {
            int(category): Parts(*map(_fen, sums))
            for category, sums in situation["categories"].items()
        }


def test_the_situations_show_every_rule() -> None:
    shown = {
        rule
        for situation in SITUATIONS
        for said in situation.values[0]["lines"]  # type: ignore[index]
        for rule in said.get("rules", ())
    }
    assert shown == set(SplitRule.__members__)
