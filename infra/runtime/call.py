"""What a server knows of the call it is answering: who calls, until when, on whose trace."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class CallerType(Enum):
    """What a certificate names."""

    ROLE = "role"
    INSTITUTION = "institution"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller as its certificate says: `spiffe://yidi/site/S/ROLE`, `…/institution/CODE`, …"""

    site: str
    type: CallerType
    name: str
    """The role, the institution's code or the operator's name."""

    @property
    def spiffe_id(self) -> str:
        """The URI in the certificate."""
        middle = "" if self.type is CallerType.ROLE else f"{self.type.value}/"
        return f"spiffe://yidi/site/{self.site}/{middle}{self.name}"


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the handler sees it."""

    caller: Identity
    deadline_us: int
    """When the caller stops waiting, on `clock.monotonic_us`."""
    traceparent: str = ""
