"""A short run of `yidi faults` as a user runs it: what was answered is still true afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ("lost", "double", "disagree", "in_doubt_left")


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_three_rounds_lose_double_and_dispute_nothing(tmp_path: Path) -> None:
    """Issue: `yidi faults --seed N --rounds N --json`."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos" / "gen")])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "infra.cli.main",
            "faults",
            "--seed",
            "1",
            "--rounds",
            "3",
            "--json",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=230,
    )
    report = json.loads(done.stdout)
    assert {name: report[name] for name in FIGURES} == dict.fromkeys(FIGURES, 0), done.stderr
    assert done.returncode == 0
    assert report["rounds"] == 3
    assert report["kills"] > 0
    assert report["settlements"] > 0
    assert report["recovery_s_max"] <= 15
