from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import local_stand_in
import pytest
from local_stand_in import COMMAND, TWO_SITES, eventually, prepare, prepare_badly
from ports import free_block

import infra.local.supervisor
from infra.local.processes import Identity, LocalNetworkError, PortInUseError
from infra.local.state import identity, locked, read_state, write_state
from infra.local.supervisor import down, status, temporary_network, up
from infra.runtime.config import Settings, load_settings


@pytest.fixture
def home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="yidi-test-", dir="/tmp"))
    home.chmod(0o711)
    yield home
    down(home)
    shutil.rmtree(home)


@pytest.fixture
def base_port() -> int:
    return free_block()


class Ups:
    """Runs `up` in processes of its own, none of which outlives the test."""

    def __init__(self, home: Path, base_port: int) -> None:
        self._arguments = ["up", str(home), str(base_port)]
        self._started: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, local_stand_in.__file__, *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate(timeout=10)


@pytest.fixture
def ups(home: Path, base_port: int) -> Iterator[Ups]:
    ups = Ups(home, base_port)
    yield ups
    ups.close()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} was not printed, but:\n{seen}")


def running(state: dict[str, Any]) -> list[Identity]:
    entries = [state.get("supervisor"), state.get("postgres"), *state.get("processes", [])]
    return [process for entry in entries if (process := identity(entry))]


ANNOUNCED = "110000 北京  edge"


def test_temporary_network_serves_and_leaves_nothing() -> None:
    prepared: list[str] = []

    def note(settings: Settings) -> None:
        prepared.append(settings.site.code)

    with temporary_network(
        prepare=note, sites=TWO_SITES, split=["gateway"], replicas={"gateway": 2}, command=COMMAND
    ) as network:
        home, plan = network.home, network.plan
        assert prepared == ["100000", "110000"]
        assert list(network.children) == ["100000-0", "110000-0", "110000-1", "110000-2"]
        settings = load_settings(plan.site_file("110000"), {})
        assert settings.roles["gateway"] == plan.internal("110000", "gateway")
        assert (plan.tls("110000") / "operator" / "local.pem").exists()
        for address in plan.edges("110000", "gateway"):
            assert any(f"edge {address}" in c.log.read_text() for c in network.children.values())
        state = read_state(home)
        assert state["status"] == "running"
        assert len(running(state)) == 6
        child = network.children["110000-2"]
        child.process.kill()
        child.process.wait(5)
        with pytest.raises(LocalNetworkError, match=r"110000-2 \(gateway\) ended with SIGKILL"):
            network.check()
        network.spawn(child.plan)
        network.wait_healthy()
        assert network.postgres is not None
        network.postgres.kill()
        with pytest.raises(LocalNetworkError, match="PostgreSQL ended"):
            network.check()
        network.postgres.start()
        network.check()
        sockets = network.postgres.socket_directory
    assert not home.exists()
    assert not sockets.exists()
    eventually(lambda: [p.pid for p in running(state)] == [os.getpid()])


def test_two_networks_side_by_side() -> None:
    def start() -> Any:
        return temporary_network(prepare=prepare, sites=TWO_SITES, command=COMMAND)

    with start() as one, start() as two:
        assert not set(one.plan.ports) & set(two.plan.ports)


def test_up_until_ctrl_c_and_again(home: Path, base_port: int, ups: Ups) -> None:
    for _ in range(2):
        process = ups.start()
        read_until(process, ANNOUNCED)
        state = read_state(home)
        assert state["status"] == status(home)["status"] == "running"
        assert len(running(state)) == 4
        with pytest.raises(LocalNetworkError, match=r"another `yidi up` runs .* `yidi down`"):
            up(home, prepare=prepare, sites=TWO_SITES, command=COMMAND)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert read_state(home) == {"status": "stopped", "base_port": base_port}
        assert running(state) == []
    assert (home / "secrets.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("checking the certificates", signal.SIGINT),
        ("starting PostgreSQL", signal.SIGINT),
        ("starting PostgreSQL", signal.SIGKILL),
        ("prepared 100000", signal.SIGTERM),
        ("prepared 100000", signal.SIGKILL),
        ("waiting for", signal.SIGKILL),
    ],
)
def test_stopped_at_any_moment_it_starts_again(
    ups: Ups, moment: str, number: signal.Signals
) -> None:
    process = ups.start()
    read_until(process, moment)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    again = ups.start()
    read_until(again, ANNOUNCED)
    again.send_signal(signal.SIGTERM)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0, output


def test_a_killed_up_is_cleaned_by_down(home: Path, base_port: int, ups: Ups) -> None:
    process = ups.start()
    read_until(process, ANNOUNCED)
    state = read_state(home)
    process.kill()
    process.communicate(timeout=10)
    assert status(home)["status"] == "killed"
    assert down(home)
    assert running(state) == []
    assert status(home) == {"status": "stopped", "base_port": base_port}
    assert not down(home)


def test_left_over_processes_end_and_a_reused_pid_lives(home: Path) -> None:
    with (
        subprocess.Popen(["sleep", "100"]) as left,
        subprocess.Popen(["sleep", "100"]) as other,
    ):
        known = Identity.of(left.pid)
        assert known is not None
        # The pid of `other` with the start of another process: given away since then.
        entries = [
            {"pid": left.pid, "started": known.started},
            {"pid": other.pid, "started": known.started + "0"},
        ]
        write_state(
            home,
            {
                "status": "running",
                "base_port": 20_000,
                "supervisor": entries[1],
                "postgres": entries[1],
                "processes": entries,
            },
        )
        assert status(home)["status"] == "killed"
        assert down(home)
        assert left.wait(5) == -signal.SIGTERM
        assert other.poll() is None
        other.kill()


def test_a_dying_child_ends_up_with_its_log(home: Path, ups: Ups) -> None:
    process = ups.start()
    read_until(process, ANNOUNCED)
    child = next(c for c in read_state(home)["processes"] if c["site"] == "110000")
    os.kill(child["pid"], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "process 110000-0" in output
    assert "edge 127.0.0.1" in output
    assert read_state(home)["status"] == "stopped"


def test_a_child_that_does_not_start_is_reported(home: Path, base_port: int) -> None:
    command = [sys.executable, "-c", "print('no such role'); raise SystemExit(3)"]
    with pytest.raises(LocalNetworkError, match=r"(?s)ended with code 3; .*no such role"):
        up(home, prepare=prepare, base_port=base_port, sites=TWO_SITES, command=command)
    assert read_state(home)["status"] == "stopped"


def test_a_child_that_never_serves_is_reported(
    home: Path, base_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.local.supervisor, "HEALTHY_S", 2)
    command = ["sh", "-c", "echo idle; exec sleep 1000"]
    with pytest.raises(LocalNetworkError, match=r"(?s)not healthy .*100000-0 at .*idle"):
        up(home, prepare=prepare, base_port=base_port, sites=TWO_SITES, command=command)


def test_a_taken_port_is_named_before_anything_starts(home: Path, base_port: int) -> None:
    with (
        socket.create_server(("127.0.0.1", base_port + 2)),
        pytest.raises(PortInUseError, match=f"port {base_port + 2} .*YIDI_BASE_PORT"),
    ):
        up(home, prepare=prepare, base_port=base_port, sites=TWO_SITES, command=COMMAND)
    assert [path.name for path in home.iterdir()] == ["lock"]


def test_detached(home: Path, base_port: int) -> None:
    progress: list[str] = []

    def start(**changes: Any) -> None:
        options: dict[str, Any] = {"prepare": prepare, "base_port": base_port, "detach": True}
        options |= {"sites": TWO_SITES, "command": COMMAND, "on_progress": progress.append}
        up(home, **options | changes)

    start()
    state = status(home)
    assert state["status"] == "running"
    assert state["supervisor"]["pid"] != os.getpid()
    assert all(entry["alive"] for entry in state["processes"])
    assert any(line.startswith(ANNOUNCED) for line in progress)
    # A file that initdb does not make: an inode number would be given out again.
    mark = home / "postgres" / "mark"
    mark.touch()
    with pytest.raises(LocalNetworkError, match="another `yidi up`"):
        start()
    assert down(home)
    assert running(state) == []
    with pytest.raises(LocalNetworkError, match="100000 cannot be migrated"):
        start(prepare=prepare_badly)
    start(base_port=None)
    assert mark.exists()
    assert status(home)["base_port"] == base_port
    assert down(home)
    start(fresh=True)
    assert not mark.exists()


def test_lost_passwords_are_explained(home: Path, base_port: int) -> None:
    (home / "postgres").mkdir()
    with pytest.raises(LocalNetworkError, match="--fresh"):
        up(home, prepare=prepare, base_port=base_port, sites=TWO_SITES, command=COMMAND)


def test_the_lock_is_free_again_after_an_error(home: Path) -> None:
    with pytest.raises(RuntimeError), locked(home):
        raise RuntimeError
    with locked(home):
        pass


def test_damaged_state_is_named(home: Path) -> None:
    (home / "state.json").write_text("{")
    with pytest.raises(LocalNetworkError, match=r"state\.json is damaged"):
        status(home)
    (home / "state.json").write_text(json.dumps({"status": "stopped", "base_port": 20_000}))
    assert status(home)["status"] == "stopped"
