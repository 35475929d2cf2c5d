"""The composition root: what each role of a site is made of, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.relay import store as relay_store
from infra.cli.roles.nation import nation_relay
from infra.cli.roles.province import Province
from infra.runtime.config import Settings, SettingsError
from infra.runtime.schema import Schema
from infra.runtime.server import Builder
from services.catalog import store as catalog_store
from services.enrollment import store as enrollment_store
from services.filing import store as filing_store
from services.policy import store as policy_store
from services.settlement import store as settlement_store


def schemas(settings: Settings) -> list[Schema]:
    """The schemas that a site has."""
    if settings.is_nation:
        return [relay_store.SCHEMA]
    return [
        enrollment_store.SCHEMA,
        filing_store.SCHEMA,
        policy_store.SCHEMA,
        catalog_store.SCHEMA,
        settlement_store.SCHEMA,
    ]


def builders(settings: Settings, roles: Iterable[str]) -> dict[str, Sequence[Builder]]:
    """How to build each of `roles` for one process of the site."""
    known = {"relay": [nation_relay]} if settings.is_nation else Province(settings).roles()
    unknown = [role for role in roles if role not in known]
    if unknown:
        raise SettingsError(
            f"roles: site {settings.site.code} has no role {', '.join(unknown)}; "
            f"it has {', '.join(known)}"
        )
    return {role: known[role] for role in roles}
