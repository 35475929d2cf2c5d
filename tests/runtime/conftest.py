"""Certificates of three sites and one running fake province for the tests of the runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_site import HOSPITAL, OTHER, OTHER_HOSPITAL, SITE, Doors, Fakes, builders, site_settings
from ports import free_port

from infra.local.certificates import ensure_authorities, ensure_site, issue_client
from infra.runtime.config import NATION, ROLES
from infra.runtime.server import Runtime, running


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of the nation, Guangdong and Beijing."""
    root, now = tmp_path_factory.mktemp("pki"), datetime.now(UTC)
    sites = (NATION, SITE, OTHER)
    ensure_authorities(root, sites, now=now)
    for site in sites:
        ensure_site(root, site, ROLES, now=now)
    for code in (HOSPITAL, OTHER_HOSPITAL):
        issue_client(root, SITE, "institution", code, now=now)
    issue_client(root, SITE, "operator", "clerk", now=now)
    return root


@pytest.fixture(scope="session")
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture(scope="session")
async def doors(pki: Path, fakes: Fakes) -> AsyncIterator[Doors]:
    """The running fake province."""
    settings = site_settings(pki, edge=free_port(), internal=free_port())
    found: list[Runtime] = []
    async with running(settings, builders(fakes, found.append)):
        yield Doors(pki, settings, found[0].dispatcher)


@pytest.fixture(autouse=True)
def _forget(fakes: Fakes) -> None:
    fakes.reset()
