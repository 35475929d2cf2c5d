"""Ports for servers that tests start; none is handed out twice.

They lie below those that temporary networks choose and those that Linux gives to outgoing
connections. A block belongs to one process, be it a worker of xdist or another run of the tests:
who binds its name, which the kernel keeps unique and frees when the process ends.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from infra.local.network import PORTS
from infra.local.processes import PortInUseError, claim_port, require_free_ports

_FIRST, _END = 10_000, 20_000
_names: list[socket.socket] = []
"""Of the blocks of this process."""


def free_block() -> int:
    """The base port of a block for one network; nobody listens on any port of it."""
    for base_port in range(_FIRST, _END, PORTS):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0yidi-test-ports-{base_port}")
        except OSError:
            name.close()
            continue
        _names.append(name)
        try:
            require_free_ports(range(base_port, base_port + PORTS))
        except PortInUseError:
            continue
        return base_port
    raise AssertionError("no free block of ports")


def _single_ports() -> Iterator[int]:
    while True:
        base_port = free_block()
        for port in range(base_port, base_port + PORTS):
            try:
                claim_port(port).close()
            except PortInUseError:
                continue
            yield port


_ports = _single_ports()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    return next(_ports)
