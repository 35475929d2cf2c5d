"""TCP proxies on the ways between sites, whose behaviour tests change while calls are under way.

All of a network run in one process of their own: `python -m infra.local.proxy LINKS` with the
links as JSON; commands come as JSON lines on its standard input and are answered by a line each.

| mode      | connections that exist          | new connections                |
|-----------|---------------------------------|--------------------------------|
| pass      | bytes go both ways              | accepted and passed on         |
| delay     | each chunk waits `ms`, both ways| the same                       |
| blackhole | bytes vanish, both ways         | accepted, never answered       |
| drop      | answers vanish, requests arrive | the same                       |
| reset     | cut off (RST)                   | cut off                        |

A connection that has lost bytes can never be used again (TLS runs in it), so it is cut off when
its link passes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from infra.local.processes import LocalNetworkError, tied_to_parent

MODES = ("pass", "delay", "blackhole", "drop", "reset")


class Linked(Protocol):
    """A way that is proxied."""

    @property
    def name(self) -> str: ...
    @property
    def listen(self) -> str: ...
    @property
    def target(self) -> str: ...


@dataclass(frozen=True)
class Command:
    """How a link shall behave from now on."""

    link: str
    mode: str
    ms: int = 0


class Proxies:
    """The proxies' process, seen from the outside; used by one thread at a time."""

    def __init__(self, process: subprocess.Popen[str], names: Sequence[str]) -> None:
        self._process = process
        self.names = tuple(names)

    @classmethod
    def start(cls, links: Sequence[Linked]) -> Proxies:
        """Start them; to be called from the main thread. Returns when all listen."""
        table = [{"name": one.name, "listen": one.listen, "target": one.target} for one in links]
        process = subprocess.Popen(
            tied_to_parent([sys.executable, "-m", "infra.local.proxy", json.dumps(table)], "KILL"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        proxies = cls(process, [link.name for link in links])
        proxies._expect("ready")
        return proxies

    def set(self, link: str, mode: str, *, ms: int = 0) -> None:
        """Change how `link` behaves; returns when it does."""
        if link not in self.names or mode not in MODES:
            raise ValueError(f"no link {link} or no mode {mode}")
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(Command(link, mode, ms))) + "\n")
        self._process.stdin.flush()
        self._expect("done")

    def heal(self) -> None:
        """All links pass."""
        for name in self.names:
            self.set(name, "pass")

    def stop(self) -> None:
        """End them."""
        self._process.kill()
        self._process.communicate()

    def _expect(self, answer: str) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if line != answer:
            self.stop()
            raise LocalNetworkError(f"the proxies ended: {line or 'see above'}")


class _Proxy:
    """One link."""

    def __init__(self, listen: str, target: str) -> None:
        self._listen = listen.rpartition(":")
        self._target = target.rpartition(":")
        self._mode, self._ms = "pass", 0
        self._spoiled: set[asyncio.StreamWriter] = set()
        """Ends whose stream has lost bytes."""
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        host, _, port = self._listen
        self._server = await asyncio.start_server(self._serve, host, int(port))

    def set(self, mode: str, ms: int) -> None:
        self._mode, self._ms = mode, ms
        if mode in ("pass", "delay", "reset"):
            for writer in list(self._open if mode == "reset" else self._spoiled):
                _cut(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        self._open.add(writer)
        try:
            if self._mode == "reset":
                return
            host, _, port = self._target
            out_reader, out_writer = await asyncio.open_connection(host, int(port))
            ends.append(out_writer)
            self._open.add(out_writer)
            pumps = (
                self._pump(reader, out_writer, ends, answers=False),
                self._pump(out_reader, writer, ends, answers=True),
            )
            tasks = [asyncio.ensure_future(pump) for pump in pumps]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        except OSError:
            pass  # the target is down: the caller is cut off as it would be without us
        finally:
            for end in ends:
                self._open.discard(end)
                self._spoiled.discard(end)
                _cut(end)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ends: Sequence[asyncio.StreamWriter],
        *,
        answers: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._mode == "delay":
                    await asyncio.sleep(self._ms / 1000)
                if self._mode == "blackhole" or (self._mode == "drop" and answers):
                    self._spoiled.update(ends)
                    continue
                writer.write(data)
                await writer.drain()


def _cut(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a network that has lost a connection does."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _main(table: Sequence[dict[str, Any]]) -> None:
    proxies = {one["name"]: _Proxy(one["listen"], one["target"]) for one in table}
    for proxy in proxies.values():
        await proxy.start()
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    print("ready", flush=True)
    while line := await commands.readline():
        command = Command(**json.loads(line))
        proxies[command.link].set(command.mode, command.ms)
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
