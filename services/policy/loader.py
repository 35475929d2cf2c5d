"""Loads the documents of a folder into the site: what an operator does before the first call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path

from infra.runtime.clock import Clock, instant
from infra.runtime.database import Database
from services.policy.domain.canonical import DocumentError, canonical
from services.policy.domain.document import Document
from services.policy.reading import NotReadable, examine, read_text
from services.policy.service import stored_document
from services.policy.store import ChangedMeanwhile, NewDocument, Store

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
    active at once, else after `NOTICE`; a site is empty when this program can read none of what is
    published there. Raise `DocumentError` naming the file and the place, also
    when a version that is already published has other content: published versions never change.
    """
    wanted = None if areas is None else set(areas)
    files = {
        path: document
        for path, document in read_folder(folder).items()
        if wanted is None or document.area in wanted
    }
    store = Store(database)
    for _ in range(ATTEMPTS):
        published = await store.versions()
        missing = []
        for path, document in files.items():
            key = (document.area, document.insurance, document.version)
            if key not in published:
                missing.append(document)
            elif published[key] != document.hash:
                fault = "is published with other content: give the changed document a new version"
                raise DocumentError(str(path), f"{'/'.join(key)} {fault}")
        if not missing:
            return 0
        now = instant(clock)
        try:
            await store.load(
                missing,
                published_at=now,
                activated_at=now + NOTICE if published and await _computes(store) else now,
            )
        except ChangedMeanwhile:
            continue
        return len(missing)
    raise DocumentError(str(folder), "others keep publishing at the same time: try again")


async def _computes(store: Store) -> bool:
    """Whether the site computes with anything that is published."""
    for row in await store.publications_after(0):
        try:
            await asyncio.to_thread(stored_document, row.content, row.hash)
        except DocumentError:
            continue
        return True
    return False


def read_folder(folder: Path) -> dict[Path, NewDocument]:
    """Every document of `folder`, checked, by file; raise `DocumentError`."""
    found: dict[tuple[str, str, str], Path] = {}
    documents: dict[Path, NewDocument] = {}
    for path in sorted(folder.glob("*.yaml")):
        documents[path] = new = _read_file(path)
        key = (new.area, new.insurance, new.version)
        if key in found:
            raise DocumentError(str(path), f"{'/'.join(key)} stands in {found[key].name} too")
        found[key] = path
    if not documents:
        raise DocumentError(str(folder), "holds no document (*.yaml)")
    return documents


def new_document(document: Document, data: Mapping[str, object], text: str) -> NewDocument:
    """The row of a document that was read from `text` as `data`."""
    return NewDocument(
        document.area,
        document.insurance,
        document.version,
        document.title,
        date.fromisoformat(document.effective_from),
        date.fromisoformat(document.effective_to),
        text,
        canonical(data),
        document.hash,
    )


def _read_file(path: Path) -> NewDocument:
    try:
        text = read_text(path)
    except NotReadable as error:
        raise DocumentError(str(path), error.fault) from error
    examined = examine(text)
    if examined.document is None or examined.errors:
        first, *others = examined.errors
        more = f" (and {len(others)} more)" if others else ""
        where = ": ".join(part for part in (f"{path}:{first.line}", first.path) if part)
        raise DocumentError(where, f"{first.text}{more}")
    return new_document(examined.document, examined.data, text)
