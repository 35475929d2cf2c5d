"""Ports for servers that tests start."""

from __future__ import annotations

import socket
from pathlib import Path

from infra.local.network import PORTS, candidate_base_port
from infra.local.processes import PortInUseError, claim_port


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_block(home: Path) -> int:
    """The base port of a block for the network of `home` that no other network has."""
    for attempt in range(100):
        base_port = candidate_base_port(f"{home}{attempt}")
        try:
            claim_port(base_port + PORTS - 1).close()
        except PortInUseError:
            continue
        return base_port
    raise AssertionError("no free block of ports")
