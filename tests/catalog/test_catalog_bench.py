"""`yidi bench catalog`: it runs on a short list and every figure is one of its own run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import pytest

from infra.cli.bench_catalog import Report
from loadtests.catalog import SIZES, bills, drawn_items
from services.catalog.domain.item import FeeCategory

ITEMS = 1_000


@pytest.mark.integration
def test_the_command_prints_its_figures() -> None:
    """A list imported and every bill split by it: else the run raises."""
    arguments = ["--items", str(ITEMS), "--seconds", "0.1", "--rounds", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli.main", "bench", "catalog", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert list(figures) == [each.name for each in fields(Report)]
    assert figures["items"] == ITEMS
    assert all(value > 0 for value in figures.values())


def test_bills_go_all_over_the_list_and_add_up() -> None:
    items = drawn_items(40_000)
    assert len({item.national_code for item in items}) > 25_000
    assert {item.fee_category for item in items} >= {FeeCategory.MATERIAL, FeeCategory.SURGERY}
    for size in SIZES:
        drawn = bills(items, size)
        assert {len(bill.lines) for bill in drawn} == {size}
        assert len(drawn) * size > len(items) - size
        assert all(bill.total_fen == sum(line.amount_fen for line in bill.lines) for bill in drawn)
