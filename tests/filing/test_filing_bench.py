"""`yidi bench filing`: it runs on a few people and every figure is one of its own run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import pytest

from infra.cli.bench_filing import Report

PEOPLE = 40


@pytest.mark.integration
def test_the_command_prints_its_figures() -> None:
    """People imported and filed, every visit asked about entitled: else the run raises."""
    arguments = ["--people", str(PEOPLE), "--seconds", "0.1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli.main", "bench", "filing", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert list(figures) == [each.name for each in fields(Report)]
    assert (figures["participants"], figures["filings"]) == (PEOPLE, 3 * PEOPLE)
    assert all(value > 0 for value in figures.values())
