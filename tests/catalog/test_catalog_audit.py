"""The rules of the fee audit at the door, situation by situation (S3-17)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.runtime.id_number import Sex
from services.catalog.audit_rules import load_audit_rules
from services.catalog.domain.audit import MOST_FINDINGS, Auditor, Finding, auditors
from services.catalog.domain.audit_bill import Facts
from services.catalog.domain.audit_rule import (
    Action,
    Ages,
    AuditRule,
    Condition,
    Duplicate,
    Exclusive,
    Frequency,
    OnlySex,
    Selector,
)
from services.catalog.domain.bill import LineSplit
from services.catalog.domain.catalogue import by_code
from services.catalog.domain.institution import (
    CareType,
    InstitutionGrade,
    InstitutionKind,
    Registration,
)
from services.catalog.domain.item import (
    CatalogClass,
    FeeCategory,
    InsuranceType,
    Item,
    Level,
    ListType,
)

SITUATIONS = Path(__file__).parents[1] / "data" / "catalog" / "audit"
FIRST, LAST = date(2026, 10, 1), date(2026, 10, 8)
_KINDS = {
    "LAB": ("化验", FeeCategory.LABORATORY, ListType.SERVICE),
    "BED": ("床位", FeeCategory.BED, ListType.SERVICE),
    "MAT": ("材料", FeeCategory.MATERIAL, ListType.CONSUMABLE),
}
ITEMS = {
    f"{kind}{number}": Item(
        national_code=f"{kind}{number}",
        name=f"{name}{figure}",
        list_type=list_type,
        catalog_class=CatalogClass.A,
        fee_category=category,
        first_self_pay_bp=dict.fromkeys(InsuranceType, 0),
        limits_micro_yuan={},
        limited_use="",
        effective_from=date(2023, 1, 1),
    )
    for kind, (name, category, list_type) in _KINDS.items()
    for number, figure in enumerate("一二三四", 1)
}
CODES = by_code(ITEMS.values())


@dataclass(frozen=True)
class Charge:
    line_id: str
    code: str = "LAB1"
    charged_on: str = ""
    quantity_e4: int = 10_000
    unit_price_micro_yuan: int = 10_000_000
    original_line_id: str = ""
    item_code: str = "own"
    national_code: str = ""
    amount_fen: int = 0
    hospital_approved: int = 0


def split_of(charge: Charge) -> LineSplit:
    """What the list makes of a charge, as far as the audit looks."""
    item = ITEMS.get(charge.code)
    return LineSplit(
        line_id=charge.line_id,
        national_code=charge.code,
        name=item.name if item else "",
        catalog_class=CatalogClass.A,
        fee_category=item.fee_category if item else FeeCategory.OTHER,
        amount_fen=charge.amount_fen,
        full_self_pay_fen=0,
        over_limit_fen=0,
        first_self_pay_fen=0,
        in_scope_fen=0,
        reason="",
        rules=(),
    )


def facts(
    visit: Mapping[str, str] = {},
    patient: Mapping[str, str] = {},
    institution: Mapping[str, str] = {},
) -> Facts:
    level = Level[institution.get("level", "three").upper()]
    return Facts(
        first_day=date.fromisoformat(visit.get("first_day", FIRST.isoformat())),
        last_day=date.fromisoformat(visit.get("last_day", LAST.isoformat())),
        care_type=CareType[visit.get("care_type", "inpatient").upper()],
        registration=Registration(
            code="H11010100001",
            name="北京示例协和医院",
            area="110000",
            grade=InstitutionGrade[institution.get("grade", "three_a").upper()],
            deductible_level=level,
            price_limit_level=level,
            settlement_level=level,
            networked={},
            suspended=False,
            effective_from=date(2023, 1, 1),
            kind=InstitutionKind[institution.get("kind", "medical").upper()],
        ),
        sex=Sex[patient["sex"].upper()] if "sex" in patient else None,
        born=date.fromisoformat(patient["born"]) if "born" in patient else None,
    )


def audit(
    rules: Sequence[AuditRule], charges: Sequence[Charge], known: Facts | None = None
) -> tuple[Finding, ...]:
    splits = [split_of(charge) for charge in charges]
    return Auditor(rules).findings(charges, splits, known or facts(), CODES)


def rule(condition: Condition, **changes: Any) -> AuditRule:
    told: dict[str, Any] = {
        "code": "RULE",
        "name": "示例规则",
        "action": Action.WARN,
        "selector": Selector(prefixes=frozenset({"LAB"})),
        "message": "{items}",
        "source": "示例",
    }
    return AuditRule(condition=condition, **told | changes)


def situations() -> Iterator[Any]:
    for path in sorted(SITUATIONS.glob("*.yaml")):
        file = yaml.safe_load(path.read_text(encoding="utf-8"))
        for one in file["situations"]:
            written = file["rule"] | one.get("rule", {})
            one["rule"] = {key: value for key, value in written.items() if value is not None}
            yield pytest.param(one, id=f"{path.stem}: {one['name']}")


@pytest.mark.parametrize("situation", [*situations()])
def test_situation(situation: dict[str, Any], tmp_path: Path) -> None:
    """Each kind of rule, written as in a file, with its edges."""
    written = {"code": "RULE", "name": "示例规则", "action": "warn", "source": "sample"}
    file = {
        "name": "全国",
        "sources": {"sample": {"document": "示例"}},
        "rules": [written | situation["rule"]],
    }
    (tmp_path / "national.yaml").write_text(yaml.safe_dump(file, allow_unicode=True), "utf-8")
    charges = [
        Charge(
            line["id"],
            line["code"],
            line.get("day", ""),
            int(Fraction(str(line.get("quantity", 1))) * 10_000),
            line.get("price", 10) * 10**6,
            line.get("of", ""),
        )
        for line in situation["lines"]
    ]
    known = facts(
        situation.get("visit", {}), situation.get("patient", {}), situation.get("institution", {})
    )
    found = audit(load_audit_rules(tmp_path)[""], charges, known)
    assert [list(one.line_ids) for one in found] == [one["lines"] for one in situation["expect"]]
    for one, expected in zip(found, situation["expect"], strict=True):
        assert expected.get("says", "") in one.message


ALL = (
    rule(Duplicate(None), code="DUP", message="{items}{day}{count}"),
    rule(Duplicate(20_000), code="DUP-2", message="{items}{day}{count}"),
    rule(Frequency(30_000, 2, True), code="FREQ", message="{items}{day}{count}{most}"),
    rule(Frequency(20_000, None, False), code="FREQ-BILL", message="{items}"),
    rule(
        OnlySex(Sex.FEMALE),
        code="SEX",
        action=Action.REFUSE,
        selector=Selector(codes=frozenset({"BED1"})),
    ),
    rule(Ages(18, None), code="AGE", selector=Selector(list_types=frozenset({ListType.SERVICE}))),
    rule(
        Exclusive(Selector(fee_categories=frozenset({FeeCategory.BED}))),
        code="EXCL",
        message="{items}{others}{day}",
    ),
)
_DAYS = st.sampled_from(["", "2026-10-01", "2026-10-02", "2026-10-03"])
_LINES = st.lists(
    st.builds(
        Charge,
        st.just(""),
        st.sampled_from([*ITEMS, "UNLISTED", ""]),
        _DAYS,
        st.integers(-30_000, 30_000).filter(bool),
        st.sampled_from([10_000_000, 20_000_000]),
    ),
    max_size=12,
).map(
    lambda lines: [
        Charge(str(n), c.code, c.charged_on, c.quantity_e4, c.unit_price_micro_yuan)
        for n, c in enumerate(lines)
    ]
)
KNOWN = facts(patient={"sex": "male", "born": "2015-01-01"})


@given(_LINES, st.randoms(use_true_random=False))
def test_the_order_of_the_lines_changes_nothing(lines: list[Charge], random: Any) -> None:
    shuffled = list(lines)
    random.shuffle(shuffled)
    assert audit(ALL, shuffled, KNOWN) == audit(ALL, lines, KNOWN)


@given(_LINES)
def test_every_finding_is_about_selected_charges(lines: list[Charge]) -> None:
    """Of lines that nothing selects none is found, and refunds never are."""
    for found in audit(ALL, lines, KNOWN):
        by_id = {line.line_id: line for line in lines}
        about = [by_id[line_id] for line_id in found.line_ids]
        assert about
        assert len(set(found.line_ids)) == len(found.line_ids)
        assert all(line.code in ITEMS and line.quantity_e4 > 0 for line in about)
        assert any(line.code.startswith("LAB") or line.code[:3] == "BED" for line in about)
    assert audit(ALL, [line for line in lines if line.code not in ITEMS], KNOWN) == ()


@given(_LINES)
def test_a_bill_that_is_wholly_returned_has_no_findings(lines: list[Charge]) -> None:
    charges = [line for line in lines if line.quantity_e4 > 0]
    refunds = [
        Charge(
            f"R{line.line_id}",
            line.code,
            line.charged_on,
            -line.quantity_e4,
            line.unit_price_micro_yuan,
            line.line_id,
        )
        for line in charges
    ]
    assert audit(ALL, [*charges, *refunds], KNOWN) == ()


def test_findings_are_bounded_and_refusals_come_first() -> None:
    """A hundred at most, and none that refuses is lost to those that warn."""
    lines = [
        Charge(f"{day}-{n}", "LAB1", f"{2020 + day // 300}-01-{day % 28 + 1:02d}", 10_000, day)
        for day in range(2 * MOST_FINDINGS)
        for n in range(2)
    ]
    lines.append(Charge("bed", "BED1"))
    found = audit(ALL, lines, KNOWN)
    assert len(found) == MOST_FINDINGS
    assert (found[0].rule.code, found[0].line_ids) == ("SEX", ("bed",))


def test_rules_of_an_area_go_before_those_of_its_province_and_of_the_nation() -> None:
    """Whole rules, by code; what an area says nothing of holds there too."""
    national = (
        rule(Frequency(10_000, 1, False), message="全国{items}"),
        rule(Ages(18, 60), code="A"),
    )
    province = (rule(Frequency(20_000, 1, False), message="全省{items}"),)
    area = (rule(Frequency(30_000, 1, False), message="本市{items}"),)
    of = auditors({"": national, "440000": province, "440800": area, "110000": area}, "440000")
    lines = [Charge("1", quantity_e4=400_000)]
    told = {
        where: [
            one.message for one in of(where).findings(lines, [*map(split_of, lines)], KNOWN, CODES)
        ]
        for where in ("440800", "440100", "110000")
    }
    assert told == {
        "440800": ["化验一", "本市化验一"],
        "440100": ["化验一", "全省化验一"],
        "110000": ["化验一", "全省化验一"],
    }


def test_a_message_fits_its_field() -> None:
    """Three names at most on a side, each cut: what to do is never cut off (300 characters)."""
    names = [f"{kind}{number}" for kind in ("LAB", "BED") for number in range(1, 5)]
    charges = [Charge(name, name, "2026-10-02") for name in names]
    long = [split_of(charge)._replace(name=f"{charge.code}{'长' * 190}") for charge in charges]
    against = Exclusive(Selector(prefixes=frozenset({"BED"})))
    message = "{items}{others}{day}" + "请" * 119 + "。"
    [found] = Auditor([rule(against, message=message)]).findings(charges, long, facts(), CODES)
    assert len(found.message) <= 300
    assert found.message.endswith("。")
    assert found.message.count("等4项") == 2
