"""When two spellings of a name or a credential number are the same."""

from __future__ import annotations

import unicodedata

_DOTS = str.maketrans(dict.fromkeys("•・‧∙⋅．.", "·"))


def same_name(name: str) -> str:
    """The form in which names are compared: no blanks, one kind of middle dot, half width.

    Systems write the dot of a minority name (间隔号) in half a dozen ways.
    """
    dotted = unicodedata.normalize("NFKC", name).translate(_DOTS)
    return "".join(dotted.split()).casefold()


def same_number(number: str) -> str:
    """The form in which card numbers are compared: no blanks around, capital letters."""
    return number.strip().upper()


def same_token(token: str) -> str:
    """The form in which e-credential tokens are compared: machines make them, case counts."""
    return token.strip()
