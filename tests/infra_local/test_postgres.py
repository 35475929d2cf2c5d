from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from local_stand_in import eventually

import infra.local.postgres
from infra.local.postgres import Postgres, find_binaries, stop_left_over
from infra.local.processes import Identity, LocalNetworkError, PortInUseError

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

RUN = """
import sys
from pathlib import Path
from infra.local.postgres import Postgres
home, port = Path(sys.argv[1]), int(sys.argv[2])
server = Postgres(data=home / "postgres", log=home / "log", port=port, password="secret")
server.start()
server.kill()
server.start()
print(server.pid, flush=True)
if sys.stdin.readline():
    server.stop()
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def home() -> Iterator[Path]:
    # Not below pytest's own folder: that is closed to the other users of these tests.
    home = Path(tempfile.mkdtemp(prefix="yidi-test-", dir="/tmp"))
    home.chmod(0o711)
    yield home
    stop_left_over(home / "postgres")
    shutil.rmtree(home)


@pytest.fixture
def server(home: Path, port: int) -> Iterator[Postgres]:
    server = Postgres(data=home / "postgres", log=home / "log", port=port, password="it's secret")
    yield server
    server.stop()


def query(
    server: Postgres, sql: str, *, host: str = "127.0.0.1", database: str = "postgres"
) -> str:
    async def ask() -> str:
        connection = await asyncpg.connect(
            host=host,
            port=server.port,
            user="postgres",
            password="it's secret",
            database=database,
            ssl=False,
        )
        try:
            return str(await connection.fetchval(sql))
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_starts_with_its_settings_and_keeps_data(server: Postgres) -> None:
    server.start()
    query(server, "CREATE DATABASE y440000")
    for name, value in {
        "fsync": "on",
        "max_connections": "300",
        "TimeZone": "UTC",
        "shared_preload_libraries": "pg_stat_statements",
        "pg_stat_statements.track_utility": "on",
        "listen_addresses": "127.0.0.1",
        "server_encoding": "UTF8",
    }.items():
        assert query(server, f"SHOW {name}") == value
    provider = "SELECT concat(datlocprovider, datlocale) FROM pg_database WHERE datname = 'y440000'"
    assert query(server, provider) == "bC.UTF-8"
    socket_path = server.socket_directory / f".s.PGSQL.{server.port}"
    assert len(os.fsencode(socket_path)) < 100
    query(
        server,
        "CREATE TABLE kept AS SELECT 7 AS n",
        host=str(server.socket_directory),
        database="y440000",
    )
    server.stop()
    assert server.pid is None
    assert not server.socket_directory.exists()
    server.start()
    assert query(server, "SELECT n FROM kept", database="y440000") == "7"


def test_a_wrong_password_is_refused(server: Postgres) -> None:
    server.start()

    async def ask() -> None:
        await asyncpg.connect(
            host=str(server.socket_directory), port=server.port, user="postgres", password="no"
        )

    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(ask())


def test_killed_server_recovers(server: Postgres) -> None:
    server.start()
    query(server, "CREATE TABLE kept AS SELECT 7 AS n")
    server.kill()
    assert server.pid is None
    server.start()
    assert query(server, "SELECT n FROM kept") == "7"


def test_a_stale_pid_of_somebody_else_is_neither_obeyed_nor_killed(server: Postgres) -> None:
    server.start()
    server.kill()
    with subprocess.Popen(["sleep", "100"]) as other:
        (server.data / "postmaster.pid").write_text(f"{other.pid}\n{server.data}\n")
        server.start()
        assert query(server, "SELECT 1") == "1"
        assert other.poll() is None
        other.kill()


def test_port_in_use(server: Postgres) -> None:
    with (
        socket.create_server(("127.0.0.1", server.port)),
        pytest.raises(PortInUseError, match=f"port {server.port} .* YIDI_BASE_PORT"),
    ):
        server.start()
    server.start()


def test_a_failed_start_shows_the_log(server: Postgres) -> None:
    server.start()
    server.stop()
    (server.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(LocalNetworkError, match="initialized by PostgreSQL version 12"):
        server.start()
    assert server.pid is None


def test_a_half_made_data_folder_is_made_again(server: Postgres) -> None:
    new = server.data.with_name("postgres.new")
    new.mkdir(parents=True)
    (new / "PG_VERSION").write_text("18\n")
    server.start()
    assert not new.exists()
    assert not list(server.data.parent.glob(".*"))


def test_a_closed_socket_folder_of_another_user_is_refused(
    server: Postgres, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    server.socket_directory = tmp_path / "link"
    with pytest.raises(LocalNetworkError, match="belongs to somebody else"):
        server.start()
    (tmp_path / "link").unlink()
    server.socket_directory = tmp_path / "sockets"


def test_binaries_by_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = find_binaries()
    monkeypatch.setenv("POSTGRES_BIN_PATH", str(found))
    assert find_binaries() == found
    monkeypatch.setenv("POSTGRES_BIN_PATH", str(tmp_path))
    with pytest.raises(LocalNetworkError, match="POSTGRES_BIN_PATH"):
        find_binaries()


def test_a_killed_supervisor_takes_the_server_along(home: Path, port: int) -> None:
    supervisor = start_as(home, port, [sys.executable])
    assert supervisor.stdout is not None
    server = Identity.of(int(supervisor.stdout.readline()))
    assert server is not None
    supervisor.kill()
    supervisor.communicate(timeout=10)
    eventually(lambda: not server.alive)
    eventually(lambda: "database system is shut down" in (home / "log").read_text())


@root_only
def test_works_for_a_plain_user(home: Path, port: int) -> None:
    identity = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    interpreter = next(
        (
            path
            for path in (sys.executable, "/usr/bin/python3")
            if not subprocess.run(
                [*identity, path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
                stderr=subprocess.DEVNULL,
                timeout=30,
            ).returncode
        ),
        None,
    )
    readable = [*identity, "test", "-r", __file__, "-a", "-x", str(find_binaries() / "postgres")]
    if interpreter is None or subprocess.run(readable, timeout=30).returncode:
        pytest.skip("another user cannot read this checkout or its interpreter")
    os.chown(home, NOBODY, NOBODY)
    run = start_as(home, port, [*identity, interpreter])
    output, _ = run.communicate("stop\n", timeout=60)
    assert run.returncode == 0, output
    assert (home / "postgres").stat().st_uid == NOBODY


@root_only
def test_root_without_user_namespaces_runs_it_as_nobody(
    home: Path, port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(infra.local.postgres, "_namespaces_work", lambda: False)
    server = Postgres(data=home / "postgres", log=home / "log", port=port, password="it's secret")
    if not os.access(server._binaries, os.X_OK):
        pytest.skip("nobody cannot read this checkout")
    server.start()
    try:
        assert Path(f"/proc/{server.pid}").stat().st_uid == NOBODY
        assert query(server, "SELECT 1") == "1"
    finally:
        server.stop()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = Postgres(data=closed / "postgres", log=home / "log", port=port, password="x")
    with pytest.raises(LocalNetworkError, match="the user nobody cannot reach"):
        server.start()


def start_as(home: Path, port: int, interpreter: list[str]) -> subprocess.Popen[str]:
    wheels = find_binaries().parents[2]
    return subprocess.Popen(
        [*interpreter, "-c", RUN, str(home), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}:{wheels}", "HOME": str(home)},
        start_new_session=True,
    )


def test_signals_of_the_terminal_do_not_reach_the_server(server: Postgres) -> None:
    server.start()
    assert server.pid is not None
    assert os.getpgid(server.pid) != os.getpgid(0)
