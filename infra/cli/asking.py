"""How commands ask the running network: the province that has a thing, every page of a list."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.text import Text

from infra.cli.client import Clients
from infra.cli.terminal import out
from infra.local.state import default_home
from infra.runtime.errors import Reason, Refusal

T = TypeVar("T")


async def with_clients(act: Callable[[Clients], Awaitable[T]]) -> T:
    """What `act` does on the running network."""
    async with Clients.connect(default_home()) as clients:
        return await act(clients)


async def held_by(
    clients: Clients,
    site: str | None,
    missing: Reason.ValueType,
    ask: Callable[[str], Awaitable[T]],
) -> tuple[str, T]:
    """The province that has it, and its answer; `missing` is what the others refuse with.

    Only `site` is asked when it is named. Raises the last one's `Refusal`, and any other at once.
    """
    *others, last = clients.chosen(site)
    for one in others:
        try:
            return one, await ask(one)
        except Refusal as refusal:
            if refusal.reason != missing:
                raise
    return last, await ask(last)


async def every_page(call: Callable[..., Awaitable[Any]], request: Any, timeout: float) -> Any:
    """All pages of a list as one response."""
    whole = await call(request, timeout=timeout)
    while whole.next_page_token:
        request.page_token = whole.next_page_token
        whole.ClearField("next_page_token")
        whole.MergeFrom(await call(request, timeout=timeout))
    return whole


def echo(answer: Message) -> None:
    """Print an answer for programs."""
    typer.echo(json_format.MessageToJson(answer, ensure_ascii=False))


def echo_facts(facts: dict[str, Any]) -> None:
    """Print facts that are no one answer for programs."""
    typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))


def show(answer: Message, lines: Text | list[Text], as_json: bool) -> None:
    """Print the answer as proto JSON, or the lines."""
    if as_json:
        echo(answer)
        return
    for line in lines if isinstance(lines, list) else [lines]:
        out().print(line, soft_wrap=True)
