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

from services.enrollment.domain.identification import CredentialType
from services.enrollment.domain.registration import Key
from services.enrollment.domain.spelling import same_name, same_number, same_token

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
        return self.seal(text.encode("utf-8"), person_id, column)

    def decrypt(self, sealed: bytes, person_id: str, column: str) -> str:
        """The text again; raises `cryptography.exceptions.InvalidTag` when it was moved."""
        return self.open(sealed, person_id, column).decode("utf-8")

    def seal(self, content: bytes, person_id: str, column: str) -> bytes:
        """`encrypt` for bytes."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, content, _bound_to(person_id, column))
        return _VERSION + nonce + sealed

    def open(self, sealed: bytes, person_id: str, column: str) -> bytes:
        """`decrypt` for bytes."""
        nonce, sealed = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        return self._cipher.decrypt(nonce, sealed, _bound_to(person_id, column))

    def key(self, type_: CredentialType, number: str, area: str = "") -> Key:
        """The key by which a credential is found; `area` counts for a personal number only.

        Personal numbers are of the area's own system: two areas may give the same one.
        """
        if type_ is CredentialType.ELECTRONIC:
            compared = same_token(number)
        elif type_ is CredentialType.PERSONAL_NUMBER:
            compared = f"{area}:{same_number(number)}"
        else:
            compared = same_number(number)
        return Key(type_, self.number_index(type_, compared))

    def number_index(self, credential_type: int, number: str) -> bytes:
        """Blind index of a credential number in its compared form, 32 bytes."""
        return _mac(self._number_key, f"{credential_type}:{number}".encode())

    def name_index(self, id_index: bytes, name: str) -> bytes:
        """Blind index of a name in its compared form: namesakes have different ones."""
        return _mac(self._name_key, id_index + name.encode("utf-8"))

    def name_matches(self, id_index: bytes, name_index: bytes, name: str) -> bool | None:
        """Whether `name` is that of the owner of the two indexes; None when none is given."""
        compared = same_name(name)
        if not compared:
            return None
        return hmac.compare_digest(self.name_index(id_index, compared), name_index)

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
