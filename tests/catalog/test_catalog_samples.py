"""The sample lists: the full ones as they are made, and as they are loaded and written."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest

from infra.cli.seeding import load_samples
from infra.runtime.clock import ManualClock
from infra.runtime.database import Database
from services.catalog.domain.catalogue import by_code
from services.catalog.domain.import_layouts import Layout, table_of
from services.catalog.domain.import_rows import RowReader
from services.catalog.domain.institution import InstitutionKind, OpenedDisease
from services.catalog.domain.item import CatalogClass, FeeCategory, InsuranceType, Item, ListType
from services.catalog.load import is_published, read_folder
from services.catalog.samples.full import SITES, full_items, full_version, many_items
from services.catalog.samples.generate import AREAS, FOLDER
from services.catalog.samples.written import write_items
from services.catalog.store import read_snapshot
from services.catalog.store.items import item_row

DRUGS = frozenset(ListType) - {ListType.SERVICE, ListType.CONSUMABLE}
HASHES = {
    "110000": "d9f556f49a7e4e3c",
    "440000": "b057091f3d009bd0",
}
"""Of the versions that `full_version` names: published lists never change, so a change of what is
made needs another `VERSION`."""


full = cache(lambda site: tuple(full_items(site)))


@pytest.fixture(scope="module", params=SITES)
def site(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def items(site: str) -> list[Item]:
    """The full list of a province, hand-written items first."""
    return [*read_folder(FOLDER / site).publication.items, *full(site)]


def codes(items: Sequence[Item]) -> dict[str, Item]:
    return {item.national_code: item for item in items}


def test_a_full_list_has_the_size_of_a_real_one(items: list[Item]) -> None:
    """S3-3: at least 3,000 drugs, 5,000 services, 20,000 consumables."""
    count = Counter(item.list_type for item in codes(items).values())
    assert sum(count[kind] for kind in DRUGS) >= 3_000
    assert count[ListType.SERVICE] >= 5_000
    assert count[ListType.CONSUMABLE] >= 20_000
    assert set(count) >= set(ListType) - {ListType.OTHER}


def test_every_row_is_valid_labelled_and_of_one_code_and_time(items: list[Item]) -> None:
    by_code(items)  # raises where two revisions of a code overlap
    assert all(item.national_code.endswith("-SAMPLE") for item in items)
    assert all(5 <= len(item.national_code) <= 50 for item in items)
    named = Counter(item.name for item in codes(items).values() if "（" not in item.name)
    assert named.most_common(1)[0][1] <= 4, "a name stands for the strengths of one drug at most"


def test_every_attribute_occurs_and_no_value_takes_it_all(items: list[Item]) -> None:
    held = codes(items).values()
    assert {item.fee_category for item in held} == set(FeeCategory)
    by_class = Counter(item.catalog_class for item in held)
    assert all(by_class[each] > len(held) // 20 for each in CatalogClass)
    for share, found in {
        "bands": [item for item in held if item.bands],
        "limits": [item for item in held if item.limits_micro_yuan],
        "restrictions": [item for item in held if item.limited_use],
        "negotiated": [item for item in held if item.negotiated],
        "bought centrally": [item for item in held if item.centrally_purchased],
        "a day's quantity": [item for item in held if item.day_limit_e4],
        "a visit's quantity": [item for item in held if item.visit_limit_e4],
        "preparations": [item for item in held if item.preparing_institution],
        "ended": [item for item in held if item.effective_to < date.max],
    }.items():
        assert 10 <= len(found) < len(held) * 3 // 4, share
    assert any(len(set(item.limits_micro_yuan.values())) > 1 for item in held)
    assert {item.list_type for item in held if item.bands} == {ListType.CONSUMABLE}
    assert all(item.dosage_form and item.unit for item in full_drugs(items))


def full_drugs(items: Sequence[Item]) -> list[Item]:
    """The generated drugs: the hand-written ones say less."""
    return [item for item in items[200:] if item.list_type in DRUGS]


def test_revisions_of_a_code_follow_one_another(items: list[Item]) -> None:
    revised = 0
    for _, group in groupby(items, key=lambda item: item.national_code):
        first, *more = group
        for second in more:
            revised += 1
            assert second.effective_from == first.effective_to + timedelta(days=1)
            assert second.limits_micro_yuan != first.limits_micro_yuan
    assert revised > 1_000


def test_preparations_belong_to_institutions_of_the_samples(site: str, items: list[Item]) -> None:
    known = {row.code for row in read_folder(FOLDER / site).registrations}
    assert {item.preparing_institution for item in items} - {""} <= known


def test_the_lists_differ_between_the_provinces() -> None:
    beijing, guangdong = (codes(full(site)) for site in SITES)
    both = beijing.keys() & guangdong.keys()
    assert len(both) > 25_000
    assert min(len(beijing.keys() - both), len(guangdong.keys() - both)) > 100
    for differs in (
        lambda one, other: one.catalog_class is not other.catalog_class,
        lambda one, other: one.limits_micro_yuan != other.limits_micro_yuan,
        lambda one, other: (
            one.catalog_class is other.catalog_class
            and one.first_self_pay_bp != other.first_self_pay_bp
        ),
    ):
        assert sum(differs(beijing[code], guangdong[code]) for code in both) > 1_000


def test_a_list_is_the_same_each_time(tmp_path: Path, site: str, items: list[Item]) -> None:
    write_items(tmp_path / "list.csv", items)
    found = hashlib.sha256((tmp_path / "list.csv").read_bytes()).hexdigest()[:16]
    assert found == HASHES[site], f"a list that differs from {full_version(site)} needs a new name"


@pytest.mark.parametrize("number", [0, 1, 5_000, 60_000])
def test_a_list_of_any_length_begins_with_the_full_one(number: int) -> None:
    made = list(many_items("110000", number))
    assert len(made) == number
    assert made[:5_000] == list(full("110000")[: min(number, 5_000)])
    by_code(made)


def test_a_list_is_written_as_an_import_reads_it(tmp_path: Path, items: list[Item]) -> None:
    some = [*items[:200], *items[200::37]]
    write_items(tmp_path / "list.csv", some)
    header, content = (tmp_path / "list.csv").read_bytes().split(b"\n", 1)
    part = RowReader().read(content, 2, table_of(Layout.CSV, header.decode()), 0, "110000")
    assert (part.rejected, part.count) == ([], len(some))
    for row, item in zip(part.rows, some, strict=True):
        assert sorted(map(str, row[1:])) == sorted(map(str, item_row(item)))


def test_the_small_lists_have_each_attribute_once_at_least() -> None:
    for site in AREAS:
        held = read_folder(FOLDER / site).publication.items
        assert {item.fee_category for item in held} == set(FeeCategory)
        assert {item.list_type for item in held} == set(ListType) - {ListType.OTHER}
        for found in (
            [item.bands for item in held],
            [item.day_limit_e4 for item in held],
            [item.visit_limit_e4 for item in held],
            [item.negotiated for item in held],
            [item.centrally_purchased for item in held],
            [item.preparing_institution for item in held],
        ):
            assert any(found)
    [banded] = [item for item in read_folder(FOLDER / "440000").publication.items if item.bands]
    assert [
        (band.up_to_micro_yuan, *(band.first_self_pay_bp[each] for each in InsuranceType))
        for band in banded.bands
    ] == [(1_000_000_000, 1_000, 1_500), (None, 2_500, 3_000)]


def test_the_sample_institutions_have_kinds_agreements_and_diseases() -> None:
    found = {row.code: row for row in read_folder(FOLDER / "110000").registrations}
    assert found["P11010600004"].kind is InstitutionKind.PHARMACY
    assert found["H11010100001"].kind is InstitutionKind.MEDICAL
    assert found["H11010700005"].agreement_end == date(2024, 12, 31)
    assert found["H11010800003"].diseases == (
        OpenedDisease("M03900", date(2023, 1, 1)),
        OpenedDisease("M01600", date(2023, 1, 1)),
    )


async def test_whole_lists_are_loaded_once(database: Database, clock: ManualClock) -> None:
    await load_samples(database, "440000", clock, whole_lists=True)
    await load_samples(database, "440000", clock, whole_lists=True)
    assert await is_published(database, "440000", full_version("440000"))
    snapshot = await read_snapshot(database, None)
    [catalogue] = snapshot.catalogues["440000"]
    assert len(catalogue.codes) > 30_000
    assert "XA02BC01A001-SAMPLE" in catalogue.codes, "the hand-written items are part of it"
    assert snapshot.mapped["H44080000001"]["Y013"]


async def test_a_province_without_a_whole_list_has_the_small_one(
    database: Database, clock: ManualClock
) -> None:
    await load_samples(database, "370000", clock, whole_lists=True)
    snapshot = await read_snapshot(database, None)
    [catalogue] = snapshot.catalogues["370000"]
    assert len(catalogue.codes) == len(read_folder(FOLDER / "370000").publication.items)
