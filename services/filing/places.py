"""Places that filings point to, as the directory of this process knows them."""

from __future__ import annotations

from infra.runtime.directory import Directory
from infra.runtime.errors import Reason, Refusal
from services.filing.domain.facts import Route
from services.filing.domain.places import Place


class Places:
    """Looks places up for one site."""

    def __init__(self, directory: Directory, site: str) -> None:
        self._directory = directory
        self._site = site

    def find(self, code: str, insured_area: str) -> Place:
        """The place of an area, county or province code; raises `Refusal` (DIRECTORY_STALE)."""
        try:
            found = self._directory.place(code)
        except Refusal as refusal:
            if refusal.reason != Reason.ERROR_REASON_AREA_UNKNOWN:
                raise
            sites = {self._site, *(listed.code for listed in self._directory.snapshot.sites)}
            province = code in sites
            route = self._route(code, code, insured_area)
            return Place(code, province, province, route, code)
        route = self._route(found.site, found.area, insured_area)
        return Place(found.area, True, False, route, found.site)

    def route(self, code: str, insured_area: str) -> Route:
        """The way to a place filed to before, whatever has become of the directory since."""
        try:
            return self.find(code, insured_area).route
        except Refusal:
            # The own places are always known.
            return Route.CROSS_PROVINCE

    def _route(self, site: str, area: str, insured_area: str) -> Route:
        if area == insured_area:
            return Route.LOCAL
        return Route.IN_PROVINCE if site == self._site else Route.CROSS_PROVINCE
