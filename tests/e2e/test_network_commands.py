"""`yidi up --detach`, `status`, `down`: what a newcomer types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_block

SAMPLE = "infra/local/samples/inpatient_guangzhou.json"


@pytest.fixture
def home() -> Iterator[Path]:
    # Not pytest's folder: run as root, PostgreSQL is another user who must pass through.
    with tempfile.TemporaryDirectory(prefix="yidi-home-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.cli.main", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"YIDI_HOME": str(home), "COLUMNS": "100"} | environment,
        timeout=90,
        check=False,
    )


def test_up_status_settle_down(home: Path) -> None:
    started = run(home, "up", "--detach", YIDI_BASE_PORT=str(free_block()))
    try:
        assert started.returncode == 0, started.stderr
        assert "registering the sample people" in started.stderr
        state = json.loads(run(home, "status", "--json").stdout)
        assert state["status"] == "running"
        assert [p["site"] for p in state["processes"]] == ["100000", "110000", "440000", "370000"]
        assert all(process["alive"] for process in state["processes"])
        settled = run(home, "settle", "--file", SAMPLE)
        assert settled.returncode == 0, settled.stderr
    finally:
        stopped = run(home, "down")
    assert stopped.returncode == 0
    assert "stopped" in stopped.stdout
    assert run(home, "status").returncode == 1


def test_commands_say_that_nothing_runs(home: Path) -> None:
    ran = run(home, "settle", "--file", SAMPLE)
    assert ran.returncode == 2
    assert "start one with `yidi up`" in ran.stderr
    assert "nothing runs" in run(home, "down").stdout
    shown = run(home, "status")
    assert shown.returncode == 1
    assert "stopped" in shown.stdout


def test_up_of_a_running_network_is_refused(yidi: Any) -> None:
    ran = yidi("up", "--detach")
    assert ran.returncode == 2
    assert "yidi down" in ran.stderr


def test_status_of_the_running_network(network: Any, yidi: Any) -> None:
    shown = yidi("status")
    assert shown.returncode == 0
    for name in ("PostgreSQL", "100000-0", "110000-0", "北京", network.plan.processes[1].edge):
        assert name in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up", "--replicas", "gateway"), "ROLE=NUMBER"),
        (("up", "--nonsense"), "No such option"),
        (("nonsense",), "No such command"),
    ],
)
def test_wrong_options_are_one_sentence(yidi: Any, arguments: tuple[str, ...], said: str) -> None:
    ran = yidi(*arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
