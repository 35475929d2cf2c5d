"""What a patient was told, as one digest, and what has changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from infra.runtime.money import yuan


def quote_digest(
    body_digest: bytes, catalogue_version: str, policy_hash: bytes, amounts: Mapping[str, int]
) -> bytes:
    """SHA-256 of the bill, the catalogue version, the policy hash and every amount, 32 bytes."""
    listed = ";".join(f"{name}={fen}" for name, fen in sorted(amounts.items()))
    text = f"{body_digest.hex()}|{catalogue_version}|{policy_hash.hex()}|{listed}"
    return hashlib.sha256(text.encode("utf-8")).digest()


def change_cause(
    *,
    quoted_catalogue: str,
    catalogue: str,
    quoted_policy: bytes,
    policy: bytes,
    quoted: Mapping[str, int],
    computed: Mapping[str, int],
) -> str:
    """Why a settlement differs from its quote, in plain Chinese with both sets of amounts.

    `quoted` is empty when the caller told only the quote's digest.
    """
    if quoted_catalogue and quoted_catalogue != catalogue:
        cause = "就医地目录已更新"
    elif quoted_policy and quoted_policy != policy:
        cause = "参保地政策已更新"
    else:
        cause = "年度累计或单据内容已变化"
    names = {"fund_total_fen": "基金支付", "account_fen": "个人账户", "cash_fen": "现金"}
    changes = [
        f"{label}由 {yuan(quoted[name])} 元变为 {yuan(computed[name])} 元"
        for name, label in names.items()
        if name in quoted and quoted[name] != computed[name]
    ]
    return "，".join([cause, *changes])
