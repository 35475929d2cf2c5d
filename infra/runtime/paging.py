"""Page tokens: what a list answered last says where the next page goes on."""

from __future__ import annotations

import re

from infra.runtime.errors import Reason, Refusal, Violation

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NUMBER = re.compile(r"[0-9]{1,18}")


def page_token(token: str, form: re.Pattern[str]) -> str:
    """The token, empty for the first page or of this form; refuses others (MESSAGE_INVALID)."""
    if token and form.fullmatch(token) is None:
        raise not_a_token()
    return token


def not_a_token() -> Refusal:
    """MESSAGE_INVALID for a token that no page has answered."""
    fault = Violation("page_token", "不是上一页返回的值")
    return Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=[fault])
