"""The proxies between sites: each mode, on connections that exist and on new ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from ports import free_port

from infra.local.proxy import Proxies
from infra.runtime.clock import monotonic_us


@dataclass(frozen=True)
class Way:
    name: str
    listen: str
    target: str


WAY = Way("a-b", f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
received: list[bytes] = []
heard = asyncio.Event()
"""Something has been received."""


@pytest.fixture(scope="module")
def proxies() -> Iterator[Proxies]:
    running = Proxies.start([WAY])
    yield running
    running.stop()


@pytest.fixture
async def echo(proxies: Proxies) -> AsyncIterator[None]:
    """What is beyond the proxy: it answers each line with itself."""
    received.clear()
    heard.clear()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                received.append(line)
                heard.set()
                writer.write(line)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(WAY.target.rpartition(":")[2]))
    yield
    proxies.heal()
    server.close()


class Caller:
    async def __aenter__(self) -> Caller:
        port = int(WAY.listen.rpartition(":")[2])
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def ask(self, text: bytes, *, within_s: float = 30) -> bytes:
        """The answer; empty when the connection was cut."""
        try:
            self.writer.write(text + b"\n")
            async with asyncio.timeout(within_s):
                return (await self.reader.readline()).strip()
        except ConnectionError:
            return b""


async def is_cut() -> bool:
    """Whether a new connection is cut off, while it is made or afterwards."""
    try:
        async with Caller() as caller:
            return await caller.ask(b"one") == b""
    except ConnectionError:
        return True


async def test_pass_and_delay(proxies: Proxies, echo: None) -> None:
    async with Caller() as caller:
        assert await caller.ask(b"one") == b"one"
        proxies.set("a-b", "delay", ms=60)
        begun = monotonic_us()
        assert await caller.ask(b"two") == b"two"
        assert monotonic_us() - begun >= 120_000  # both ways


async def test_blackhole_swallows_and_is_cut_when_it_heals(proxies: Proxies, echo: None) -> None:
    async with Caller() as caller:
        assert await caller.ask(b"one") == b"one"
        proxies.set("a-b", "blackhole")
        with pytest.raises(TimeoutError):
            await caller.ask(b"lost", within_s=0.1)
        proxies.heal()
        assert await caller.ask(b"again") == b""
    assert received == [b"one\n"]


async def test_drop_loses_the_answer_only(proxies: Proxies, echo: None) -> None:
    proxies.set("a-b", "drop")
    async with Caller() as caller:
        with pytest.raises(TimeoutError):
            await caller.ask(b"heard", within_s=0.2)
        async with asyncio.timeout(30):
            await heard.wait()
    assert received == [b"heard\n"]


async def test_reset_cuts_what_exists_and_what_comes(proxies: Proxies, echo: None) -> None:
    async with Caller() as caller:
        assert await caller.ask(b"one") == b"one"
        proxies.set("a-b", "reset")
        assert await caller.ask(b"two") == b""
    assert await is_cut()
    proxies.heal()
    async with Caller() as caller:
        assert await caller.ask(b"four") == b"four"


async def test_a_target_that_is_down_cuts_the_caller(proxies: Proxies) -> None:
    assert await is_cut()


def test_unknown_links_and_modes_are_refused(proxies: Proxies) -> None:
    with pytest.raises(ValueError, match="no link"):
        proxies.set("x-y", "pass")
    with pytest.raises(ValueError, match="no link"):
        proxies.set("a-b", "explode")
