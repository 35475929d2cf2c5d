"""The local network as data: its sites, processes and ports, and the file of each site.

Nothing here starts anything. The ports of one network are a block of 100 from its base port:
PostgreSQL, then the edge of each site (what other sites know), then whatever the split needs;
the last one is held by the supervisor as the claim on the block. For tests that break things a
network may have one PostgreSQL per site, and a proxy on each way between two sites (a link).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.local.files import write_atomic
from infra.local.processes import LocalNetworkError
from infra.local.state import Passwords
from infra.runtime.config import EDGE_ROLES, NATION, ROLES, Area

HOST = "127.0.0.1"
PORTS = 100
"""Ports of one network."""
_FIRST_PORT, _END_PORT = 20_000, 32_000
"""Below the range from which Linux takes the ports of outgoing connections (32768 and up)."""


@dataclass(frozen=True)
class LocalSite:
    """The nation, or a province with its pooling areas."""

    code: str
    name: str
    areas: tuple[Area, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """What the site runs."""
        return ("relay",) if self.code == NATION else ROLES


def _area(code: str, name: str, counties: str = "") -> Area:
    return Area(code=code, name=name, aliases=tuple(f"{code[:4]}{c}" for c in counties.split()))


SITES = (
    LocalSite(NATION, "国家"),
    LocalSite(
        "110000",
        "北京",
        (
            Area(
                code="110000",
                name="北京市",
                aliases=("110100", *(f"1101{n:02}" for n in (1, 2, 5, 6, 7, 8, 9, *range(11, 20)))),
            ),
        ),
    ),
    LocalSite(
        "440000",
        "广东",
        (
            _area("440100", "广州市", "03 04 05 06 11 12 13 14 15 17 18"),
            # 赤坎 霞山 坡头 麻章 遂溪 徐闻 廉江 雷州 吴川
            _area("440800", "湛江市", "02 03 04 11 23 25 81 82 83"),
        ),
    ),
    LocalSite(
        "370000",
        "山东",
        (
            _area("370100", "济南市", "02 03 04 05 12 13 14 15 16 17 24 26"),
            # 任城 兖州 微山 鱼台 金乡 嘉祥 汶上 泗水 梁山 曲阜 邹城
            _area("370800", "济宁市", "11 12 26 27 28 29 30 31 32 81 83"),
        ),
    ),
)
"""The sites that `yidi up` starts; county codes (区县代码) are those of GB/T 2260."""


@dataclass(frozen=True)
class Process:
    """One process of a site and where it listens."""

    name: str
    """`<site>-<n>`, also the name of its log."""
    site: str
    roles: tuple[str, ...]
    internal: str
    edge: str | None
    """None when it runs no edge role."""


@dataclass(frozen=True)
class Link:
    """The way from one site to the edge of another one's relay, through a proxy."""

    caller: str
    callee: str
    listen: str
    """What the caller knows."""
    target: str
    """Where the callee listens."""

    @property
    def name(self) -> str:
        """`<caller>-<callee>`."""
        return f"{self.caller}-{self.callee}"


@dataclass(frozen=True)
class NetworkPlan:
    """Everything that follows from the base port, the sites and the split."""

    home: Path
    base_port: int
    sites: tuple[LocalSite, ...]
    processes: tuple[Process, ...]
    own_postgres_ports: Mapping[str, int] = field(default_factory=dict)
    """Site → port, when each site has a PostgreSQL of its own."""
    links: tuple[Link, ...] = ()
    """The proxied ways between sites, when they are proxied."""
    failpoints: bool = False
    """Whether faults may be armed in the processes."""

    @property
    def postgres_port(self) -> int:
        """Where PostgreSQL listens, also the first port of the block."""
        return self.base_port

    @property
    def failpoints_folder(self) -> Path:
        """Where faults are armed."""
        return self.home / "failpoints"

    @property
    def claim_port(self) -> int:
        """Held by the supervisor, so that two networks never share a block."""
        return self.base_port + PORTS - 1

    @property
    def ports(self) -> list[int]:
        """Every port that must be free, without the claim."""
        addresses = [p.internal for p in self.processes]
        addresses += [p.edge for p in self.processes if p.edge]
        addresses += [link.listen for link in self.links]
        databases = sorted(self.own_postgres_ports.values()) or [self.postgres_port]
        return [*databases, *sorted(int(a.rpartition(":")[2]) for a in addresses)]

    def tls(self, site: str) -> Path:
        """Folder with the certificates of `site`."""
        return self.home / "tls" / site

    def site_file(self, site: str) -> Path:
        """The settings of `site`."""
        return self.home / "sites" / f"{site}.toml"

    def internal(self, site: str, role: str) -> tuple[str, ...]:
        """Internal addresses of the replicas of `role`."""
        return tuple(p.internal for p in self.processes if p.site == site and role in p.roles)

    def edges(self, site: str, role: str) -> tuple[str, ...]:
        """Edge addresses of the replicas of an edge role; empty when the site has none."""
        return tuple(
            p.edge for p in self.processes if p.site == site and role in p.roles and p.edge
        )

    def edge_for(self, caller: str, callee: str) -> str | None:
        """Where `caller` reaches the relay of `callee`: the proxy's address if there is one."""
        for link in self.links:
            if (link.caller, link.callee) == (caller, callee):
                return link.listen
        return next(iter(self.edges(callee, "relay")), None)


def plan_network(
    home: Path,
    base_port: int,
    *,
    sites: Sequence[LocalSite] = SITES,
    split: Sequence[str] = (),
    split_sites: Sequence[str] | None = None,
    replicas: Mapping[str, int] | None = None,
    postgres_per_site: bool = False,
    proxied: bool = False,
    failpoints: bool = False,
) -> NetworkPlan:
    """Give each province one process, and each role of `split` or `replicas` its own.

    Only the provinces in `split_sites` are split when it is given. The nation always runs its
    relay in one process. Other sites know one relay of a site: its first replica; with `proxied`
    they know a proxy before it, each of them another one.
    """
    counts = dict(replicas or {})
    own = {*split, *counts}
    if unknown := sorted(own - set(ROLES)):
        raise LocalNetworkError(f"unknown roles {', '.join(unknown)}; known: {', '.join(ROLES)}")
    if wrong := sorted(role for role, count in counts.items() if count < 1):
        raise LocalNetworkError(f"replicas of {', '.join(wrong)}: at least 1 is needed")
    if not 1024 <= base_port <= 65_536 - PORTS:
        raise LocalNetworkError(
            f"base port {base_port}: YIDI_BASE_PORT must be from 1024 to {65_536 - PORTS}"
        )
    free = iter(range(base_port + 1 + len(sites), base_port + PORTS - 1))
    processes: list[Process] = []
    for index, site in enumerate(sites):
        known_edge = [base_port + 1 + index]
        whole = split_sites is not None and site.code not in split_sites
        for number, roles in enumerate(_groups(site, set() if whole else own, counts)):
            edge = None
            if "relay" in roles and known_edge:
                edge = f"{HOST}:{known_edge.pop()}"
            elif set(roles) & set(EDGE_ROLES):
                edge = f"{HOST}:{_take(free)}"
            name = f"{site.code}-{number}"
            processes.append(Process(name, site.code, roles, f"{HOST}:{_take(free)}", edge))
    plan = NetworkPlan(home.absolute(), base_port, tuple(sites), tuple(processes))
    ports = {site.code: _take(free) for site in sites} if postgres_per_site else {}
    links = tuple(_links(plan, free)) if proxied else ()
    return replace(plan, own_postgres_ports=ports, links=links, failpoints=failpoints)


def _links(plan: NetworkPlan, free: Iterator[int]) -> Iterator[Link]:
    """Both ways between the nation and each province."""
    provinces = [site.code for site in plan.sites if site.code != NATION]
    for province in provinces:
        for caller, callee in ((province, NATION), (NATION, province)):
            target = plan.edge_for(caller, callee)
            if target is not None:
                yield Link(caller, callee, f"{HOST}:{_take(free)}", target)


def _groups(site: LocalSite, own: set[str], counts: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """The roles of each process of `site`."""
    if site.code == NATION:
        yield site.roles
        return
    if together := tuple(role for role in site.roles if role not in own):
        yield together
    for role in site.roles:
        if role in own:
            yield from [(role,)] * counts.get(role, 1)


def _take(free: Iterator[int]) -> int:
    port = next(free, None)
    if port is None:
        raise LocalNetworkError(f"so many processes need more than {PORTS} ports: fewer replicas")
    return port


def candidate_base_port(seed: str) -> int:
    """A base port that differs between most seeds, and is the same for the same one."""
    digest = hashlib.sha256(seed.encode()).digest()
    return _FIRST_PORT + int.from_bytes(digest[:4]) % ((_END_PORT - _FIRST_PORT) // PORTS) * PORTS


def choose_base_port(home: Path, *, explicit: int | None, saved: int | None) -> int:
    """What the caller asks for, else `YIDI_BASE_PORT`, else the last one, else by folder."""
    if explicit is not None:
        return explicit
    if text := os.environ.get("YIDI_BASE_PORT"):
        if not text.isdecimal():
            raise LocalNetworkError(f"YIDI_BASE_PORT={text} is not a port number")
        return int(text)
    return saved if saved is not None else candidate_base_port(str(home.resolve()))


def write_site_files(
    plan: NetworkPlan, *, database_host: str | Mapping[str, str], passwords: Passwords
) -> None:
    """Write the settings file of every site; `database_host` is one for all, or by site."""
    folder = plan.home / "sites"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for site in plan.sites:
        database = {
            "host": database_host if isinstance(database_host, str) else database_host[site.code],
            "port": plan.own_postgres_ports.get(site.code, plan.postgres_port),
            "name": database_name(site.code),
            "admin_password": passwords.postgres,
            "password": passwords.sites[site.code],
        }
        text = "\n".join(
            ["# Written by `yidi up`.", *_toml(_site_table(plan, site, database, passwords)), ""]
        )
        write_atomic(plan.site_file(site.code), text)


def database_name(site: str) -> str:
    """The database of a site."""
    return f"y{site}"


def _site_table(
    plan: NetworkPlan, site: LocalSite, database: dict[str, Any], passwords: Passwords
) -> dict[str, Any]:
    table: dict[str, Any] = {
        # The sample policies fill what the sources do not publish.
        "allow_illustrative": True,
        "enrollment_key": passwords.enrollment_keys[site.code],
        "site": {"code": site.code, "name": site.name, **_areas(site)},
        "roles": {role: plan.internal(site.code, role) for role in site.roles},
        "database": database,
        "tls": {"directory": str(plan.tls(site.code))},
    }
    if plan.failpoints:
        table["failpoints_folder"] = str(plan.failpoints_folder)
    if site.code == NATION:
        table["neighbours"] = [
            {
                "code": other.code,
                "name": other.name,
                "edge": plan.edge_for(NATION, other.code),
                **_areas(other),
            }
            for other in plan.sites
            if other.code != NATION
        ]
    else:
        nation = plan.edge_for(site.code, NATION)
        if nation is None:
            raise LocalNetworkError(f"the sites lack the nation ({NATION})")
        table["nation"] = {"edge": nation}
    return table


def _areas(site: LocalSite) -> dict[str, Any]:
    if not site.areas:
        return {}
    return {"areas": [area.model_dump(mode="json", exclude_defaults=True) for area in site.areas]}


def _toml(table: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """TOML lines of nested tables, plain values first as the format demands."""
    nested: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict) or _is_tables(value):
            nested.append((f"{path}.{key}" if path else key, value))
        else:
            # JSON spells strings, integers, booleans and flat arrays as TOML does.
            yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
    for name, value in nested:
        if isinstance(value, dict):
            yield from ("", f"[{name}]", *_toml(value, name))
        else:
            for item in value:
                yield from ("", f"[[{name}]]", *_toml(item, name))


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
