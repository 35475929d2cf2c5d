"""What the local network needs from the operating system: processes and ports.

A process is known by its pid and the moment it started, so that a pid that the system has
given to somebody else is never signalled. Children are tied to their parent: when it dies,
even by SIGKILL, the kernel signals them. Linux only.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class LocalNetworkError(Exception):
    """The local network cannot do what was asked; the text says why and what to do."""


class PortInUseError(LocalNetworkError):
    """Somebody else listens on a port that the network needs."""


@dataclass(frozen=True)
class Identity:
    """One process, told apart from a later one with the same pid."""

    pid: int
    started: str
    """Boot id and clock ticks since boot."""

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process with this pid now, or None; a zombie counts as gone."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return None
        # The command name in brackets may itself hold spaces and brackets.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, f"{boot}/{fields[19]}")

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Identity.of(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Signal this very process; False when it is gone."""
        try:
            # The descriptor is taken before the check, so the pid cannot change hands between.
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


def stop_processes(processes: Iterable[Identity], *, grace_s: float) -> None:
    """End foreign processes: SIGTERM, after `grace_s` SIGKILL; return when they are gone."""
    asked = [process for process in processes if process.send(signal.SIGTERM)]
    if wait_until(lambda: not any(process.alive for process in asked), timeout_s=grace_s):
        return
    for process in asked:
        process.send(signal.SIGKILL)
    if not wait_until(lambda: not any(process.alive for process in asked), timeout_s=5):
        left = [process.pid for process in asked if process.alive]
        raise LocalNetworkError(f"processes {left} of a former run cannot be ended")


def wait_until(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Look at `condition` every 20 ms; False when it did not come true within the time."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def tied_to_parent(
    command: Sequence[str], death_signal: str, *, privileges: Sequence[str] = ()
) -> list[str]:
    """`command` as a child that gets `death_signal` (such as TERM) when this process dies.

    The kernel watches the thread that starts the child, so only the main thread may.
    `privileges` are further options of setpriv(1).
    """
    if threading.current_thread() is not threading.main_thread():
        raise LocalNetworkError("the local network must be started from the main thread")
    if shutil.which("setpriv") is None:
        raise LocalNetworkError("the command setpriv is missing: install the package util-linux")
    # The parent may die before the kernel is told to watch it: then the child must not start.
    check = '[ "$PPID" -eq "$0" ] || exit 1; exec "$@"'
    tie = ["setpriv", *privileges, "--pdeathsig", death_signal]
    return [*tie, "sh", "-c", check, str(os.getpid()), *command]


def claim_port(port: int) -> socket.socket:
    """Hold a port of 127.0.0.1 until the socket is closed; raise `PortInUseError`."""
    claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Servers set it too: without it, connections just closed would look like a listener.
    claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        claim.bind(("127.0.0.1", port))
        claim.listen(1)
    except OSError as error:
        claim.close()
        raise PortInUseError(
            f"port {port} on 127.0.0.1 cannot be used ({error.strerror}):"
            " stop what listens there, or choose another range with YIDI_BASE_PORT"
        ) from error
    return claim


def require_free_ports(ports: Iterable[int]) -> None:
    """Raise `PortInUseError` for the first port that somebody listens on."""
    for port in ports:
        claim_port(port).close()
