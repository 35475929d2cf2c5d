"""What a home folder (`.yidi`) remembers: the lock, the running processes, the passwords."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.files import write_atomic
from infra.local.processes import Identity, LocalNetworkError, wait_until


def default_home() -> Path:
    """`YIDI_HOME`, else `.yidi` in the checkout that this code runs from, else in `.`."""
    if chosen := os.environ.get("YIDI_HOME"):
        return Path(chosen).absolute()
    checkout = Path(__file__).resolve().parents[2]
    return (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / ".yidi"


@contextlib.contextmanager
def locked(home: Path, *, timeout_s: float = 0) -> Iterator[None]:
    """Own the home; raise when another supervisor owns it. The kernel frees a killed one's."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "lock").open("a")
    except OSError as error:
        raise LocalNetworkError(
            f"cannot write to {home} ({error.strerror}): start as its owner,"
            " or choose another folder with YIDI_HOME"
        ) from error
    with lock:
        if not wait_until(lambda: _try_lock(lock.fileno()), timeout_s=timeout_s):
            running = identity(read_state(home).get("supervisor"))
            who = f" (process {running.pid})" if running else ""
            raise LocalNetworkError(
                f"another `yidi up` runs in {home}{who}: end it with `yidi down`,"
                " or choose another folder with YIDI_HOME"
            )
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_state(home: Path) -> dict[str, Any]:
    """The last written state; empty when there is none."""
    try:
        state = json.loads((home / "state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise LocalNetworkError(f"{home / 'state.json'} is damaged: {error}") from error
    return dict(state)


def write_state(home: Path, state: dict[str, Any]) -> None:
    """Replace the state as a whole."""
    write_atomic(home / "state.json", json.dumps(state, ensure_ascii=False, indent=1) + "\n")


def identity(entry: dict[str, Any] | None) -> Identity | None:
    """The process that an entry of the state names, if it still runs."""
    if not entry or "started" not in entry:
        return None
    known = Identity(entry["pid"], entry["started"])
    return known if known.alive else None


@dataclass(frozen=True)
class Passwords:
    """Of the database's superuser and, by site, of its services; and what enrollment encrypts
    with, 32 bytes in hex."""

    postgres: str
    sites: dict[str, str]
    enrollment_keys: dict[str, str]


def ensure_passwords(home: Path, sites: Iterable[str]) -> Passwords:
    """Read `secrets.toml`, adding random passwords for what is new."""
    path, sites = home / "secrets.toml", list(sites)
    known: dict[str, Any] = {}
    if path.exists():
        known = tomllib.loads(path.read_text(encoding="ascii"))
    elif (home / "postgres").exists():
        raise LocalNetworkError(f"{path} is gone, so its database is closed: use --fresh")
    by_site = dict(known.get("sites", {}))
    keys = dict(known.get("enrollment_keys", {}))
    found = Passwords(
        postgres=known.get("postgres") or secrets.token_urlsafe(24),
        sites=by_site | {s: by_site.get(s) or secrets.token_urlsafe(24) for s in sites},
        enrollment_keys=keys | {s: keys.get(s) or secrets.token_hex(32) for s in sites},
    )
    lines = [f'postgres = "{found.postgres}"', "[sites]"]
    lines += [f'{site} = "{password}"' for site, password in found.sites.items()]
    lines.append("[enrollment_keys]")
    lines += [f'{site} = "{key}"' for site, key in found.enrollment_keys.items()]
    # A password lost in a power cut would close the data that is kept.
    write_atomic(path, "\n".join(lines) + "\n", sync=True)
    return found
