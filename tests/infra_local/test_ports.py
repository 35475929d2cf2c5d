"""The ports that the tests themselves use."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from ports import free_block, free_port

from infra.local.network import PORTS, candidate_base_port

_OTHER = "import ports; print(ports.free_block(), ports.free_port(), flush=True); input()"


def test_a_port_is_handed_out_once_and_a_taken_one_never() -> None:
    block, first = free_block(), free_port()
    with socket.create_server(("127.0.0.1", first + 1)):
        ports = [free_port() for _ in range(2 * PORTS)]
    assert len({first, first + 1, *ports, *range(block, block + PORTS)}) == 3 * PORTS + 2
    assert max(ports) < min(candidate_base_port(str(number)) for number in range(500))


def test_two_processes_have_no_block_in_common() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = [int(port) // PORTS for port in other.stdout.readline().split()]
        mine = {free_block() // PORTS, *(free_port() // PORTS for _ in range(PORTS + 1))}
        other.communicate("\n", timeout=60)
    assert len(set(theirs)) == 2
    assert mine.isdisjoint(theirs)
