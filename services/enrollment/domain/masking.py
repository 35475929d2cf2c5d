"""What of a name and a number may stand on a screen."""

from __future__ import annotations


def masked_name(name: str) -> str:
    """王*: the first character; how long the name is stays hidden."""
    return f"{name[:1]}*"


def masked_id_number(id_number: str) -> str:
    """440802********001X: place code and the last four characters, the birth date hidden."""
    return f"{id_number[:6]}{'*' * 8}{id_number[-4:]}"
