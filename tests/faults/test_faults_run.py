"""A short run of `yidi faults` as a user runs it: what was answered is still true afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.processes import Identity

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ("lost", "double", "disagree", "in_doubt_left")
KEYS = ["rounds", "kills", "faults", "settlements", *FIGURES, "recovery_s_max"]
"""The issue's, in its order; others may follow."""
BOUND_S = 170


@pytest.fixture(scope="module")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen processes that compile everything would take longer than the rounds."""
    return tmp_path_factory.mktemp("bytecode")


def start(folder: Path, bytecode: Path, rounds: int) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos" / "gen")]),
        "PYTHONPYCACHEPREFIX": str(bytecode),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "infra.cli.main", "faults", "--seed", "1", "--json"]
    return subprocess.Popen(
        [*command, "--rounds", str(rounds)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background of a script has them ignore it, and their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.faults
@pytest.mark.timeout(BOUND_S + 10)
def test_three_rounds_lose_double_and_dispute_nothing(tmp_path: Path, bytecode: Path) -> None:
    """Issue: `yidi faults --seed N --rounds N --json`, a short seed set in under three minutes."""
    with start(tmp_path, bytecode, rounds=3) as running:
        answered, told = running.communicate(timeout=BOUND_S)
    report = json.loads(answered)
    assert list(report)[: len(KEYS)] == KEYS
    assert {name: report[name] for name in FIGURES} == dict.fromkeys(FIGURES, 0), told
    assert running.returncode == 0
    assert report["rounds"] == 3
    assert report["kills"] > 0
    assert report["settlements"] > 0
    assert report["paid_by_account"] > 0
    assert report["postings"] > 0
    assert report["unforeseen"] == 0, told
    assert 0 < report["places_acted"] <= report["places_armed"]
    assert report["recovery_s_max"] <= 15


@pytest.mark.faults
@pytest.mark.timeout(BOUND_S)
def test_an_interrupted_run_leaves_no_process(tmp_path: Path, bytecode: Path) -> None:
    """Ctrl-C in the middle of a round."""
    with start(tmp_path, bytecode, rounds=3) as running:
        assert running.stderr is not None
        assert any(line.startswith("round 0") for line in running.stderr)
        started = [Identity.of(pid) for pid in descendants(running.pid)]
        assert len(started) > 15
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert running.returncode == 130
    assert [one for one in started if one is not None and one.alive] == []


def descendants(ancestor: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {ancestor})
