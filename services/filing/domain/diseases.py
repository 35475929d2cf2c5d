"""When two codes of a disease mean the same disease."""

from __future__ import annotations

import re

_CHRONIC = re.compile(r"[A-Z]\d{5}")


def category(code: str) -> str:
    """What codes of the same disease share: of a 门诊慢特病 (`M00503`) its class, the first four
    characters; of a diagnosis (ICD-10, `C34.900`) its category, the first three."""
    return code[:4] if _CHRONIC.fullmatch(code) else code[:3]
