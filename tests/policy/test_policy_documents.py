"""Documents are strict: what is wrong, where, and what to do; and ours are sound."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from policy_samples import OWN, terms

from services.policy.domain import names
from services.policy.domain.canonical import DocumentError, canonical, content_hash
from services.policy.domain.compute import _ENTITLED
from services.policy.domain.document import Provenance
from services.policy.domain.parse import parse, parse_content
from services.policy.loader import DOCUMENTS, read_folder
from services.policy.service import _BASES, _CARE_TYPES, _CLASSES, _LEVELS, _PERSONS, _ROUTES

FOUNDED = {"source": "example", "clause": "一"}


def ratio_rows(data: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = data["plans"]["inpatient"]["ratio"]["rows"]
    return rows


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.pop("area"), "document.area: is missing"),
        (lambda d: d.update(area="44080"), "document.area: '44080' is not six digits"),
        (lambda d: d.update(surprise=1), r"unknown keys \['surprise'\]"),
        (lambda d: d.update(insurance="311"), "document.insurance: '311' is not one of"),
        (lambda d: d.update(effective_from="2026-02-31"), "is not an ISO date"),
        (lambda d: d.update(effective_to="1999-12-31"), "lies before effective_from"),
        (lambda d: d.update(period_cap=[]), "period_cap: must be stated for every person class"),
        (lambda d: ratio_rows(d)[0].update(basis_points=80.5), "is a float"),
        (lambda d: ratio_rows(d)[0].update(basis_points=10_001), "whole number from 0 to 10000"),
        (lambda d: ratio_rows(d)[0].update(basis_points=True), "whole number from 0 to 10000"),
        (lambda d: ratio_rows(d)[0].pop("clause"), r"rows\[0\].clause: is missing"),
        (lambda d: ratio_rows(d)[0].update(source="nobody"), "'nobody' is not one of"),
        (lambda d: ratio_rows(d)[0].update(levels=["four"]), "'four' is not one of"),
        (lambda d: ratio_rows(d)[0].update(persons=["adult_resident"]), "is not one of"),
        (lambda d: ratio_rows(d)[0].update(up_to_fen=5), "has no last segment"),
        (lambda d: ratio_rows(d)[0].update(from_age=70), "states no age below 70"),
        (
            lambda d: ratio_rows(d).append({"levels": ["one"], "basis_points": 1, **FOUNDED}),
            "is already stated by another row",
        ),
        (
            lambda d: d["plans"]["inpatient"]["deductible"]["rows"][0].update(from_stay=2),
            "states no first stay",
        ),
        (
            lambda d: d["plans"]["inpatient"].update(cap=[{"fen": 1, **FOUNDED}]),
            "a cap of its own needs one",
        ),
        (
            lambda d: d["plans"].update(more=copy.deepcopy(d["plans"]["inpatient"])),
            "inpatient is already stated",
        ),
    ],
)
def test_fault_names_the_place(change: Callable[[dict[str, Any]], object], text: str) -> None:
    data = terms()
    change(data)
    with pytest.raises(DocumentError, match=text):
        parse(data)


def test_hash_is_of_the_canonical_form() -> None:
    """The same content in another order has the same hash; another value has another."""
    data = terms()
    turned = dict(reversed(data.items()))
    assert parse(data).hash == parse(turned).hash == content_hash(canonical(data))
    assert parse_content(canonical(data)) == parse(data)
    ratio_rows(data)[0]["basis_points"] = 8001
    assert parse(data).hash != parse(turned | {"plans": terms()["plans"]}).hash


def test_own_documents_read_back_from_their_canonical_form() -> None:
    for document, content in read_folder(DOCUMENTS):
        assert parse_content(content) == document


def test_own_documents_cover_the_sites() -> None:
    assert set(OWN) == {
        ("440800", "310"), ("440800", "390"), ("440100", "310"), ("440100", "390"),
        ("370800", "310"), ("370800", "390"), ("370100", "310"),
        ("110000", "310"), ("110000", "390"),
    }  # fmt: skip
    for document in OWN.values():
        assert set(document.plans) == set(names.CARE_TYPES)
        for plan in document.plans.values():
            if plan.no_funds is None:
                # S0-26..29: every class that filing can answer outside the area has its row.
                for route in ("in_province", "cross_province"):
                    for benefit_class in set(names.BENEFIT_CLASSES) - {"local"}:
                        assert (route, benefit_class) in plan.reductions
                assert ("local", "long_term_back_home") in plan.reductions


def test_reductions_of_zhanjiang_and_jining_are_official() -> None:
    """S4-16..18, S2-20..22: read in the texts themselves."""
    for area in ("440800", "370800"):
        for insurance in ("310", "390"):
            for plan in OWN[area, insurance].plans.values():
                for reduction in plan.reductions.values():
                    assert reduction.value.provenance is Provenance.OFFICIAL


def test_names_are_the_contracts_spelling() -> None:
    """PROTOCOL §11: documents use the wire spelling, so no value of the contract is unreachable."""
    assert set(_ROUTES.values()) == set(names.ROUTES)
    assert set(_CLASSES.values()) == set(names.BENEFIT_CLASSES)
    assert set(_CARE_TYPES.values()) == set(names.CARE_TYPES)
    assert set(_PERSONS.values()) == set(names.PERSON_CLASSES)
    assert set(_LEVELS.values()) == set(names.LEVELS)
    assert set(_BASES.values()) == _ENTITLED | {"none"}
    assert set(names.PERSON_CLASSES) == {
        person for persons in names.PERSONS_OF_INSURANCE.values() for person in persons
    }


def test_folder_faults_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="holds no document"):
        read_folder(tmp_path)
    (tmp_path / "a.yaml").write_text("area: [")
    with pytest.raises(DocumentError, match=r"a\.yaml: cannot be read"):
        read_folder(tmp_path)
    (tmp_path / "a.yaml").write_text("effective_from: 2026-01-01")
    with pytest.raises(DocumentError, match=r"a\.yaml: document\.effective_from.*put it in quotes"):
        read_folder(tmp_path)
    text = (DOCUMENTS / "440800_310.yaml").read_text()
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text)
    with pytest.raises(DocumentError, match=r"b\.yaml: 440800/310/.* stands in another file too"):
        read_folder(tmp_path)
