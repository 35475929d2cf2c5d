"""Keys of enrollment: encryption at rest and the blind indexes that make look-ups possible.

From one 32-byte secret HKDF-SHA256 derives separate keys. A blind index is an HMAC: equal inputs
have equal indexes, and without the key an index says nothing, although ID numbers could be listed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES = 32
_NONCE_BYTES = 12
_VERSION = b"\x01"
"""First byte of every ciphertext, so that a later key can be told from this one."""


class Vault:
    """Encrypts, decrypts and indexes; holds keys, so it is never logged."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is 32 random bytes, the same for every replica and for ever."""
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"the enrollment secret must have {SECRET_BYTES} bytes")
        self._cipher = AESGCM(_derive(secret, "encryption"))
        self._number_key = _derive(secret, "number index")
        self._name_key = _derive(secret, "name index")
        self._audit_key = _derive(secret, "audit")

    def encrypt(self, text: str, person_id: str, column: str) -> bytes:
        """AES-256-GCM; the ciphertext opens only for this person and column."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, text.encode("utf-8"), _bound_to(person_id, column))
        return _VERSION + nonce + sealed

    def decrypt(self, sealed: bytes, person_id: str, column: str) -> str:
        """The text again; raises `cryptography.exceptions.InvalidTag` when it was moved."""
        nonce = sealed[1 : 1 + _NONCE_BYTES]
        text = self._cipher.decrypt(nonce, sealed[1 + _NONCE_BYTES :], _bound_to(person_id, column))
        return text.decode("utf-8")

    def number_index(self, credential_type: int, number: str) -> bytes:
        """Blind index of a credential number in its compared form, 32 bytes."""
        return _mac(self._number_key, f"{credential_type}:{number}".encode())

    def name_index(self, id_index: bytes, name: str) -> bytes:
        """Blind index of a name in its compared form: namesakes have different ones."""
        return _mac(self._name_key, id_index + name.encode("utf-8"))

    def audit_digest(self, *parts: object) -> bytes:
        """What an audit row keeps of personal content: comparable, not readable."""
        return _mac(self._audit_key, "\x1f".join(str(part) for part in parts).encode("utf-8"))


def _derive(secret: bytes, purpose: str) -> bytes:
    info = f"yidi enrollment {purpose} 1".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)


def _bound_to(person_id: str, column: str) -> bytes:
    return UUID(person_id).bytes + column.encode()
