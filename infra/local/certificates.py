"""Development certificates: a CA of the nation, a CA per site, and the leaves they sign.

Folder of one site, as `infra.runtime.tls` reads it:

    <root>/<site>/nation-ca.pem  site-ca.pem          trust anchors
    <root>/<site>/edge.pem  edge.key                  signed by the nation's CA, for other sites
    <root>/<site>/<role>.pem  <role>.key              signed by the site's CA, inside the site
    <root>/<site>/institution/<CODE>.pem  .key        signed by the site's CA
    <root>/<site>/operator/<NAME>.pem  .key           signed by the site's CA

The CAs' own pairs are in `<root>/ca`, as `nation` and by site code. What exists is kept while
it is valid for 7 more days and matches its CA; a new CA renews every leaf. Keys are 0600.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.local.files import write_atomic

CA_VALID = timedelta(days=5 * 365)
LEAF_VALID = timedelta(days=365)
RENEW_BEFORE = timedelta(days=7)
_BACKDATED = timedelta(minutes=5)
"""Clocks of two machines differ by a little."""

_NATION = "nation"


@dataclass(frozen=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_authorities(root: Path, sites: Iterable[str], *, now: datetime) -> None:
    """Make the CA of the nation and of each site where they are missing or run out."""
    folder = root / "ca"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (_NATION, *sites):
        found = _read(folder / name)
        if found is None or not _lasts(found.certificate, now):
            _write(folder / name, _make_authority(f"yidi development CA {name}", now))


def ensure_site(root: Path, site: str, roles: Iterable[str], *, now: datetime) -> None:
    """Fill the folder of `site`: trust anchors, edge pair, one pair per role."""
    nation, own = _authority(root, _NATION), _authority(root, site)
    folder = root / site
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, authority in (("nation-ca", nation), ("site-ca", own)):
        write_atomic(folder / f"{name}.pem", _pem(authority.certificate), mode=0o644)
    _ensure_leaf(folder / "edge", nation, site, "relay", now)
    for role in roles:
        _ensure_leaf(folder / role, own, site, role, now)


def issue_client(
    root: Path, site: str, kind: Literal["institution", "operator"], name: str, *, now: datetime
) -> Path:
    """Make the pair of an institution or operator of `site`; return its path without suffix.

    Raise ValueError when `name` cannot stand in a SPIFFE id.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", name):
        raise ValueError(f"{kind} {name!r}: only letters, digits, - and _ (at most 40)")
    path = root / site / kind / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _ensure_leaf(path, _authority(root, site), site, f"{kind}/{name}", now)
    return path


def _ensure_leaf(path: Path, authority: _Pair, site: str, who: str, now: datetime) -> None:
    spiffe_id = f"spiffe://yidi/site/{site}/{who}"
    found = _read(path)
    if (
        found is None
        or not _lasts(found.certificate, now)
        or not _issued_by(found.certificate, authority.certificate)
        or _spiffe_ids(found.certificate) != [spiffe_id]
    ):
        _write(path, _make_leaf(authority, site, who, spiffe_id, now))


def _make_authority(name: str, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _common_name(name)
    builder = (
        _builder(subject, subject, key, now, CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _make_leaf(authority: _Pair, site: str, who: str, spiffe_id: str, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.UniformResourceIdentifier(spiffe_id),
        x509.DNSName("localhost"),
        x509.DNSName(f"site-{site}.yidi.internal"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = authority.certificate
    # A leaf that outlived its issuer would fail before anything renewed it.
    valid = min(LEAF_VALID, issuer.not_valid_after_utc - now)
    builder = (
        _builder(_common_name(f"{site} {who}"), issuer.subject, key, now, valid)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    return _Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    valid: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _lasts(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _spiffe_ids(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _authority(root: Path, name: str) -> _Pair:
    found = _read(root / "ca" / name)
    if found is None:
        raise ValueError(f"no CA {name} in {root / 'ca'}: call ensure_authorities first")
    return found


def _read(path: Path) -> _Pair | None:
    """The pair at `path`, or None when a part is missing, broken or of another pair."""
    try:
        certificate = x509.load_pem_x509_certificate(
            path.with_name(f"{path.name}.pem").read_bytes()
        )
        key = serialization.load_pem_private_key(
            path.with_name(f"{path.name}.key").read_bytes(), password=None
        )
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    return _Pair(certificate, key) if certificate.public_key() == key.public_key() else None


def _write(path: Path, pair: _Pair) -> None:
    private = pair.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_atomic(path.with_name(f"{path.name}.key"), private)
    write_atomic(path.with_name(f"{path.name}.pem"), _pem(pair.certificate), mode=0o644)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
