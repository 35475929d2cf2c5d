"""Certificates of a site, and who a peer's certificate says that it is.

Folder of a site: `nation-ca.pem`, `site-ca.pem`; `edge.pem`/`edge.key` signed by the nation's CA
(`spiffe://yidi/site/S/relay`, towards other sites); `<role>.pem`/`.key`, `institution/<CODE>.…`
and `operator/<NAME>.…` signed by the site's CA.

TLS alone is not enough on the edge, where both CAs are trusted: a leaf of a site's CA that names
another site's relay would pass. So the identity depends on *which* CA signed the leaf.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtensionOID

from infra.runtime.call import CallerType, Identity
from infra.runtime.config import SettingsError

_SPIFFE = re.compile(r"^spiffe://yidi/site/([0-9]{6})/(?:(institution|operator)/)?([\w.-]{1,64})$")
_CACHE_SIZE = 4_096


class UntrustedCertificate(Exception):
    """The certificate does not entitle its holder to the name it carries."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its certificate, PEM."""

    key: bytes
    certificate: bytes


def server_name(site: str) -> str:
    """The DNS name in every certificate of a site, which clients check."""
    return f"site-{site}.yidi.internal"


class SiteCertificates:
    """The certificates of one site, read from its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nation_ca = self._read("nation-ca.pem")
        self.site_ca = self._read("site-ca.pem")

    def key_pair(self, name: str) -> KeyPair:
        """The pair `name` (a role, `edge`, `institution/CODE`, `operator/NAME`)."""
        return KeyPair(self._read(f"{name}.key"), self._read(f"{name}.pem"))

    def edge_server(self) -> grpc.ServerCredentials:
        """Credentials of the edge listener: trusts other sites and this site's own clients."""
        return _server(self.key_pair("edge"), self.nation_ca + self.site_ca)

    def internal_server(self, role: str) -> grpc.ServerCredentials:
        """Credentials of the internal listener: trusts this site only."""
        return _server(self.key_pair(role), self.site_ca)

    def edge_client(self) -> grpc.ChannelCredentials:
        """Credentials towards another site's edge."""
        return _client(self.key_pair("edge"), self.nation_ca)

    def client(self, name: str) -> grpc.ChannelCredentials:
        """Credentials of a role, an institution or an operator towards its own site."""
        return _client(self.key_pair(name), self.nation_ca + self.site_ca)

    def _read(self, name: str) -> bytes:
        path = self._folder / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise SettingsError(
                f"tls.directory: cannot read {path}: {error.strerror}; "
                "it must hold the site's trust anchors and key pairs"
            ) from error


def _server(pair: KeyPair, roots: bytes) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], root_certificates=roots, require_client_auth=True
    )


def _client(pair: KeyPair, roots: bytes) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(roots, pair.key, pair.certificate)


class IdentityCheck:
    """Turns a peer's certificate into an identity; remembers certificates it has seen."""

    def __init__(self, site: str, *, site_ca: bytes, nation_ca: bytes) -> None:
        self._site = site
        self._site_ca = x509.load_pem_x509_certificate(site_ca)
        self._nation_ca = x509.load_pem_x509_certificate(nation_ca)
        self._known: dict[bytes, Identity] = {}

    def identify(self, pem: bytes) -> Identity:
        """Who the certificate names; raise `UntrustedCertificate` when its CA may not say so."""
        known = self._known.get(pem)
        if known is not None:
            return known
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            names = certificate.extensions.get_extension_for_oid(
                ExtensionOID.SUBJECT_ALTERNATIVE_NAME
            ).value
        except (ValueError, x509.ExtensionNotFound) as error:
            raise UntrustedCertificate("no readable subject alternative name") from error
        assert isinstance(names, x509.SubjectAlternativeName)
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        match = _SPIFFE.match(uris[0]) if len(uris) == 1 else None
        if match is None:
            raise UntrustedCertificate("no SPIFFE id of the suite")
        site, kind, name = match.groups()
        identity = Identity(site, CallerType(kind or "role"), name)
        if _issued(certificate, self._nation_ca):
            allowed = identity.type is CallerType.ROLE and name == "relay"
        else:
            allowed = _issued(certificate, self._site_ca) and site == self._site
        if not allowed:
            raise UntrustedCertificate(f"{identity.spiffe_id} is not this CA's to name")
        if len(self._known) >= _CACHE_SIZE:
            self._known.clear()
        self._known[pem] = identity
        return identity


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
