"""Loads the documents of a folder into the site: what an operator does before the first call."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import yaml

from infra.runtime.clock import Clock, instant
from infra.runtime.database import Database
from services.policy.domain.canonical import DocumentError, canonical
from services.policy.domain.document import Document
from services.policy.domain.parse import parse
from services.policy.store import NewDocument, PublishedMeanwhile, Store

DOCUMENTS = Path(__file__).parent / "documents"
"""The documents that come with the suite."""

NOTICE = timedelta(seconds=60)
"""Time between publishing into a site that computes already and the first use: twice what a
replica may be behind, so that all of them change over at the same instant."""
ATTEMPTS = 5


async def load_documents(
    database: Database, folder: Path, clock: Clock, *, areas: Iterable[str] | None = None
) -> int:
    """Publish the documents of `folder` that the site does not have; return how many.

    `areas` keeps those of the site's own pooling areas (None: all). Into an empty site they are
    active at once, else after `NOTICE`. Raise `DocumentError` naming the file and the place, also
    when a version that is already published has other content: published versions never change.
    """
    wanted = None if areas is None else set(areas)
    documents = [
        (document, content)
        for document, content in read_folder(folder)
        if wanted is None or document.area in wanted
    ]
    store = Store(database)
    for _ in range(ATTEMPTS):
        published = await store.versions()
        missing = []
        for document, content in documents:
            key = (document.area, document.insurance, document.version)
            if key not in published:
                missing.append(_new(document, content))
            elif published[key] != document.hash:
                raise DocumentError(
                    "/".join(key),
                    "is published with other content: give the changed document a new version",
                )
        if not missing:
            return 0
        now = instant(clock)
        try:
            await store.publish(
                missing,
                published_at=now,
                activated_at=now + NOTICE if published else now,
                actor="loader",
            )
        except PublishedMeanwhile:
            continue
        return len(missing)
    raise DocumentError(str(folder), "others keep publishing at the same time: try again")


def read_folder(folder: Path) -> list[tuple[Document, str]]:
    """Every document of `folder` with its canonical form, by file name; raise `DocumentError`."""
    documents: dict[tuple[str, str, str], tuple[Document, str]] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DocumentError(path.name, f"cannot be read: {error}") from error
        try:
            if not isinstance(data, dict):
                raise DocumentError("document", "must be a mapping")
            document = parse(data)
        except DocumentError as error:
            raise DocumentError(path.name, str(error)) from error
        key = (document.area, document.insurance, document.version)
        if key in documents:
            raise DocumentError(path.name, f"{'/'.join(key)} stands in another file too")
        documents[key] = (document, canonical(data))
    if not documents:
        raise DocumentError(str(folder), "holds no document (*.yaml)")
    return list(documents.values())


def _new(document: Document, content: str) -> NewDocument:
    return NewDocument(
        document.area,
        document.insurance,
        document.version,
        date.fromisoformat(document.effective_from),
        date.fromisoformat(document.effective_to),
        content,
        document.hash,
    )
