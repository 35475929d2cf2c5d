"""One question to every province: one that does not answer stops no other, and is named."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import typer

from infra.cli.client import Clients
from infra.cli.terminal import err, show_refusal
from infra.local.state import default_home
from infra.runtime.errors import Refusal

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What the provinces say, by site code."""

    found: dict[str, T]
    silent: dict[str, Refusal]
    """Those that did not answer, and why."""
    names: dict[str, str]

    def end(self) -> None:
        """Name those that did not answer: then the command ends with exit code 1."""
        for site, refusal in self.silent.items():
            err().print(f"{site} {self.names[site]} 没有答复 did not answer:", style="red")
            show_refusal(refusal, err())
        if self.silent:
            raise typer.Exit(1)


def everywhere(site: str | None, ask: Callable[[Clients, str], Awaitable[T]]) -> Answers[T]:
    """What `ask` gets of the province `site`, or of every one.

    Raises the `Refusal` that is the answer of all of them: then the question itself is wrong.
    """
    return asyncio.run(_everywhere(site, ask))


async def _everywhere(site: str | None, ask: Callable[[Clients, str], Awaitable[T]]) -> Answers[T]:
    async with Clients.connect(default_home()) as clients:
        sites = clients.chosen(site)
        answers = await asyncio.gather(
            *(ask(clients, one) for one in sites), return_exceptions=True
        )
        names = clients.provinces
    found: dict[str, T] = {}
    silent: dict[str, Refusal] = {}
    for one, answer in zip(sites, answers, strict=True):
        if isinstance(answer, Refusal):
            silent[one] = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found[one] = answer
    if not found and len({refusal.reason for refusal in silent.values()}) == 1:
        raise next(iter(silent.values()))
    return Answers(found, silent, names)
