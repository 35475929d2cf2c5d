"""Typed settings of one site, from its TOML file and the environment.

The file describes the site as an operator sees it: who it is, which pooling areas and
institutions are its own, where each role listens, where the database is. An environment
variable wins over the file: `YIDI_` and the path of the key joined by two underscores,
for example `YIDI_DATABASE__PASSWORD`. Every mistake is reported at once with its key.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

NATION = "100000"
ROLES = ("enrollment", "filing", "policy", "catalog", "settlement", "gateway", "relay")
"""The roles of a province; the nation runs only `relay`."""
EDGE_ROLES = ("gateway", "relay")
"""Roles that other organisations reach: served on the edge listener as well."""

AreaCode = Annotated[str, Field(pattern=r"^[0-9]{6}$")]
Address = Annotated[str, Field(pattern=r"^[^\s:/]+:[0-9]{1,5}$")]


class SettingsError(Exception):
    """The settings cannot be used; the text names each key and what is wrong with it."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Area(_Section):
    """One pooling area (统筹区) of a site and the services it has opened."""

    code: AreaCode
    name: str
    aliases: tuple[AreaCode, ...] = ()
    """County codes that mean this area (区县代码)."""
    insurances: tuple[Literal["310", "390"], ...] = ("310", "390")
    """Insurance types opened: 310 employees 职工, 390 residents 城乡居民 (insutype)."""
    care_types: tuple[str, ...] = ("11", "13", "14", "21", "22", "41")
    """Care types opened (med_type)."""


class Site(_Section):
    """Who this deployment is."""

    code: AreaCode
    name: str
    areas: tuple[Area, ...] = ()


class Listen(_Section):
    """Where this process listens; an empty edge address means that it serves no edge role."""

    edge: Address | None = None
    internal: Address | None = None


class Neighbour(_Section):
    """A province as the nation knows it: its edge address and its pooling areas."""

    code: AreaCode
    name: str
    edge: Address
    areas: tuple[Area, ...] = ()
    min_revision: int = 1
    max_revision: int = 1


class Nation(_Section):
    """Where the nation's relay is reached."""

    edge: Address


class Database(_Section):
    """The site's PostgreSQL; each service logs in with a role of its own."""

    host: str
    port: int = 5432
    name: str
    admin_user: str = "postgres"
    admin_password: SecretStr = SecretStr("")
    """Used by `yidi migrate` only."""
    password: SecretStr
    """Password of the services' app roles."""
    connections: int = Field(default=6, ge=1, le=100)
    """Upper bound of connections per service and process."""

    def admin_login(self) -> dict[str, Any]:
        """What asyncpg connects with as the administrator."""
        return {
            "host": self.host,
            "port": self.port,
            "database": self.name,
            "user": self.admin_user,
            "password": self.admin_password.get_secret_value(),
        }


class Tls(_Section):
    """Folder with the trust anchors and the key pairs of this site (see `infra.runtime.tls`)."""

    directory: Path


class Limits(_Section):
    """Every bound and time limit in one table (PROTOCOL §11)."""

    settle_ms: int = Field(default=6_000, ge=100)
    hop_margin_ms: int = Field(default=50, ge=0)
    local_call_ms: int = Field(default=2_000, ge=10)
    join_poll_ms: int = Field(default=100, ge=10)
    batch_items: int = Field(default=256, ge=1, le=256)
    batch_bytes: int = Field(default=1 << 20, ge=1 << 16)
    queue_items: int = Field(default=2_048, ge=1)
    in_flight: int = Field(default=1, ge=1, le=64)
    """Batches under way at once per coalescer inside the site: one, so that the next one fills."""
    exchange_in_flight: int = Field(default=2, ge=1, le=64)
    """The same between sites, where a batch is out for a whole round trip."""
    per_caller_items: int = Field(default=1_024, ge=1)
    """Items of one caller (an institution; at the nation a province) waiting for or under way to
    one site: half a queue, so that nobody fills it alone."""
    breaker_failures: int = Field(default=3, ge=1)
    """Failures in a row after which a site is taken to be unreachable."""
    breaker_open_ms: int = Field(default=2_000, ge=1)
    """How long it is then left alone before one call tries again."""
    breaker_patience_ms: int = Field(default=1_000, ge=0)
    """A call that was given less time than this and ran out of it is not counted as a failure."""
    message_bytes: int = Field(default=4 << 20, ge=1 << 16)
    directory_poll_ms: int = Field(default=2_000, ge=50)
    directory_max_age_ms: int = Field(default=300_000, ge=1_000)
    recover: bool = True
    """Whether the settlement role asks by itself about doubtful rows, and about days that another
    journal may lack; tests turn it off."""
    drain_ms: int = Field(default=8_000, ge=0)


class Telemetry(_Section):
    """Logs and traces; without an endpoint no span is made."""

    otlp_endpoint: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(_Section):
    """All settings of one site."""

    site: Site
    listen: Listen = Listen()
    roles: dict[str, tuple[Address, ...]] = {}
    """Where each role of this site is reached on the internal listener: role → replicas."""
    nation: Nation | None = None
    neighbours: tuple[Neighbour, ...] = ()
    """At the nation: the provinces."""
    database: Database
    tls: Tls
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()
    enrollment_key: SecretStr = SecretStr("")
    """What enrollment encrypts names and numbers with: 32 bytes in hex."""
    event_loop: Literal["uvloop", "asyncio"] = "uvloop"
    allow_illustrative: bool = False
    """Whether policy values of provenance `illustrative` may pay (never in production)."""
    production: bool = False
    """Whether real money moves: nothing may then be made to fail on purpose."""
    failpoints_folder: Path | None = None
    """Folder of armed faults (see `infra.runtime.failpoints`), for tests; refused in production."""

    @property
    def is_nation(self) -> bool:
        """Whether this site is the nation's relay."""
        return self.site.code == NATION

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        unknown = sorted(set(self.roles) - set(ROLES))
        if unknown:
            raise ValueError(f"roles: unknown role {unknown}; known are {list(ROLES)}")
        if not self.is_nation and self.nation is None:
            raise ValueError("nation.edge is missing: a province must know the nation's relay")
        if self.production and self.failpoints_folder is not None:
            raise ValueError("failpoints_folder: faults cannot be armed with production = true")
        return self


def load_settings(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the site file at `path`; raise `SettingsError` naming every key that is wrong."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the site file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    for name, value in (os.environ if environment is None else environment).items():
        keys = name.removeprefix("YIDI_").lower().split("__")
        if name.startswith("YIDI_") and (len(keys) > 1 or keys[0] in Settings.model_fields):
            _put(data, keys, value)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError(f"{path}:\n  " + "\n  ".join(faults)) from error


def _put(data: dict[str, Any], keys: list[str], value: str) -> None:
    for key in keys[:-1]:
        nested = data.setdefault(key, {})
        if not isinstance(nested, dict):
            raise SettingsError(f"YIDI_{'__'.join(keys).upper()}: {key} is not a table")
        data = nested
    data[keys[-1]] = value
