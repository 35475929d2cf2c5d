"""Calling a running network as one of its people would: an institution, an operator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from infra.local.certificates import issue_client
from infra.local.processes import LocalNetworkError
from infra.local.state import read_state
from infra.local.supervisor import OPERATOR
from infra.runtime.clock import SystemClock, instant
from infra.runtime.config import Settings, load_settings
from infra.runtime.links import RemoteChannel, stub
from infra.runtime.tls import SiteCertificates

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class SiteAddresses:
    """Where a site of the local network is reached."""

    settings: Settings
    tls: Path
    edge: tuple[str, ...]
    """Edge addresses of the gateway (of the relay at the nation)."""
    internal: dict[str, tuple[str, ...]]
    """Role → internal addresses."""


def network_of(state: dict[str, Any]) -> dict[str, SiteAddresses]:
    """The sites of a running network, from its state file; raise when it is not running."""
    if state.get("status") != "running":
        raise LocalNetworkError("no local network is running: start one with `yidi up`")
    sites: dict[str, SiteAddresses] = {}
    for code in sorted({process["site"] for process in state["processes"]}):
        processes = [process for process in state["processes"] if process["site"] == code]
        settings = load_settings(Path(processes[0]["site_file"]))
        door = "relay" if settings.is_nation else "gateway"
        internal: dict[str, tuple[str, ...]] = {}
        for process in processes:
            for role in process["roles"]:
                internal[role] = (*internal.get(role, ()), process["internal"])
        sites[code] = SiteAddresses(
            settings=settings,
            tls=settings.tls.directory,
            edge=tuple(p["edge"] for p in processes if door in p["roles"] and p["edge"]),
            internal=internal,
        )
    return sites


class Clients:
    """Stubs towards the sites of a network; channels are opened once."""

    def __init__(self, sites: dict[str, SiteAddresses]) -> None:
        self.sites = sites
        self._channels: dict[tuple[str, ...], RemoteChannel] = {}

    @classmethod
    @asynccontextmanager
    async def connect(cls, home: Path, *, starting: bool = False) -> AsyncIterator[Clients]:
        """Clients of the network that runs in `home`; with `starting` also of one on its way."""
        state = read_state(home)
        if starting and state.get("status") == "starting":
            state["status"] = "running"
        clients = cls(network_of(state))
        try:
            yield clients
        finally:
            await clients.close()

    @property
    def provinces(self) -> dict[str, str]:
        """Names of the provinces by site code."""
        return {
            code: at.settings.site.name
            for code, at in self.sites.items()
            if not at.settings.is_nation
        }

    def chosen(self, site: str | None) -> list[str]:
        """The province `site`, or all of them; raise `LocalNetworkError` when there is none."""
        provinces = self.provinces
        if site is None:
            return list(provinces)
        if site not in provinces:
            known = ", ".join(f"{code} {name}" for code, name in provinces.items())
            raise LocalNetworkError(f"--site {site}: no province of this network; it has {known}")
        return [site]

    def site_of_area(self, area: str) -> str | None:
        """The site that a pooling area or county code belongs to, if it runs here."""
        for code, at in self.sites.items():
            for own in at.settings.site.areas:
                if area == own.code or area in own.aliases:
                    return code
        return None

    def operator(self, kind: Callable[[Any], S], site: str, role: str, who: str = OPERATOR) -> S:
        """A stub of a role of `site`, called as an operator of the site; raise `LocalNetworkError`
        when `who` has no certificate there."""
        key = (site, role, "operator", who)
        if key not in self._channels:
            at = self.sites[site]
            known = sorted(path.stem for path in (at.tls / "operator").glob("*.pem"))
            if who not in known:
                raise LocalNetworkError(
                    f"--as {who}: no operator of {site} has a certificate of this name; there are "
                    f"{', '.join(known)}"
                )
            self._channels[key] = self._open(site, at.internal[role], f"operator/{who}")
        return stub(kind, self._channels[key])

    def institution(self, kind: Callable[[Any], S], site: str, code: str, door: int = 0) -> S:
        """A stub of the front door of `site`, called as one of its institutions.

        `door` picks a replica of the gateway.
        """
        key = (site, "institution", code, str(door))
        if key not in self._channels:
            at = self.sites[site]
            issue_client(at.tls.parent, site, "institution", code, now=instant(SystemClock()))
            addresses = (at.edge[door % len(at.edge)],)
            self._channels[key] = self._open(site, addresses, f"institution/{code}")
        return stub(kind, self._channels[key])

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close()

    def _open(self, site: str, addresses: tuple[str, ...], name: str) -> RemoteChannel:
        at = self.sites[site]
        return RemoteChannel.open(
            addresses,
            SiteCertificates(at.tls).client(name),
            site=site,
            message_bytes=at.settings.limits.message_bytes,
        )
