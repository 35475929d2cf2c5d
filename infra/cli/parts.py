"""Files in numbered parts of whole lines, a few of them under way at a time.

A file is read as a stream and cut the same way every time, so a second run of a stopped import
goes on at the part that the server wants next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import BinaryIO, TypeVar

from infra.cli.asking import with_clients
from infra.cli.client import Clients
from infra.cli.terminal import err

P = TypeVar("P")
T = TypeVar("T")
IN_FLIGHT = 3
_SKIPPED = 1 << 16


def read_lines(file: BinaryIO, longest: int) -> Iterator[bytes]:
    """Lines with their ends; of one longer than `longest` bytes as much as shows that it is."""
    while line := file.readline(longest + 2):
        if len(line) == longest + 2 and not line.endswith(b"\n"):
            while (rest := file.readline(_SKIPPED)) and not rest.endswith(b"\n"):
                pass
            line += b"\n"
        yield line


def cut(lines: Iterable[bytes], first_line: int, most: int) -> Iterator[tuple[int, bytes]]:
    """Lines in parts of at most `most` bytes: the number of each one's first line, the lines;
    a longer line is a part of its own."""
    kept, size = list[bytes](), 0
    for line, text in enumerate(lines, first_line):
        if kept and size + len(text) > most:
            yield first_line, b"".join(kept)
            first_line, kept, size = line, [], 0
        kept.append(text)
        size += len(text)
    if kept:
        yield first_line, b"".join(kept)


async def send_parts(parts: Iterable[P], wanted: int, take: Callable[[P], Awaitable[None]]) -> int:
    """`take` the parts, numbered from 1, from the `wanted` one on; returns how many there are.

    The first error ends it: what was taken until then stays.
    """
    number = 0
    under_way: set[asyncio.Future[None]] = set()
    try:
        for number, part in enumerate(parts, 1):
            if number < wanted:
                continue
            under_way.add(asyncio.ensure_future(take(part)))
            if len(under_way) == IN_FLIGHT:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
        for one in list(under_way):
            await one
    finally:
        for one in under_way:
            one.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
    return number


def run_import(act: Callable[[Clients], Awaitable[T]]) -> T:
    """What `act` gets of the running network; whoever stops it hears how it goes on."""
    try:
        return asyncio.run(with_clients(act))
    except KeyboardInterrupt:
        err().print("已停下；再次运行同一命令即从停下处继续。")
        raise
