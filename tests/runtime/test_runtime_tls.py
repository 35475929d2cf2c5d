"""Which CA signed a certificate decides what it may name (PROTOCOL §11 Identity; S4-48)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from fake_site import HOSPITAL, OTHER, SITE

from infra.local import certificates
from infra.runtime.call import CallerType, Identity
from infra.runtime.config import NATION, SettingsError
from infra.runtime.tls import IdentityCheck, SiteCertificates, UntrustedCertificate, server_name


def leaf(pki: Path, authority: str, site: str, who: str, *, spiffe_id: str = "") -> bytes:
    """A certificate that the CA `authority` should perhaps never have signed."""
    pair = certificates._make_leaf(
        certificates._authority(pki, authority),
        site,
        who,
        spiffe_id or f"spiffe://yidi/site/{site}/{who}",
        datetime.now(UTC),
    )
    return certificates._pem(pair.certificate)


@pytest.fixture
def check(pki: Path) -> IdentityCheck:
    found = SiteCertificates(pki / SITE)
    return IdentityCheck(SITE, site_ca=found.site_ca, nation_ca=found.nation_ca)


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("edge", Identity(SITE, CallerType.ROLE, "relay")),
        ("settlement", Identity(SITE, CallerType.ROLE, "settlement")),
        (f"institution/{HOSPITAL}", Identity(SITE, CallerType.INSTITUTION, HOSPITAL)),
        ("operator/clerk", Identity(SITE, CallerType.OPERATOR, "clerk")),
    ],
)
def test_own_certificates_are_who_they_say(
    check: IdentityCheck, pki: Path, name: str, identity: Identity
) -> None:
    assert check.identify((pki / SITE / f"{name}.pem").read_bytes()) == identity


@pytest.mark.parametrize("site", [NATION, OTHER])
def test_another_sites_edge_is_known_by_the_nations_ca(
    check: IdentityCheck, pki: Path, site: str
) -> None:
    pem = (pki / site / "edge.pem").read_bytes()
    assert check.identify(pem) == Identity(site, CallerType.ROLE, "relay")


@pytest.mark.parametrize(
    ("authority", "site", "who"),
    [
        (SITE, NATION, "relay"),
        (SITE, OTHER, "relay"),
        (SITE, OTHER, f"institution/{HOSPITAL}"),
        ("nation", OTHER, "gateway"),
        ("nation", SITE, "settlement"),
        ("nation", SITE, "operator/clerk"),
        ("nation", SITE, f"institution/{HOSPITAL}"),
        (OTHER, OTHER, "relay"),
        (OTHER, SITE, "settlement"),
    ],
    ids=str,
)
def test_a_name_that_its_ca_may_not_give_is_denied(
    check: IdentityCheck, pki: Path, authority: str, site: str, who: str
) -> None:
    with pytest.raises(UntrustedCertificate):
        check.identify(leaf(pki, authority, site, who))


@pytest.mark.parametrize(
    "spiffe_id",
    [
        "spiffe://elsewhere/site/440000/gateway",
        "spiffe://yidi/site/44/gateway",
        "spiffe://yidi/site/440000/patient/x",
        "spiffe://yidi/site/440000/institution/",
        "spiffe://yidi/site/440000/",
        "https://yidi/site/440000/gateway",
    ],
)
def test_names_that_are_not_of_the_suite_are_denied(
    check: IdentityCheck, pki: Path, spiffe_id: str
) -> None:
    with pytest.raises(UntrustedCertificate):
        check.identify(leaf(pki, SITE, SITE, "gateway", spiffe_id=spiffe_id))


def test_a_certificate_authority_is_nobody(check: IdentityCheck, pki: Path) -> None:
    with pytest.raises(UntrustedCertificate):
        check.identify((pki / SITE / "site-ca.pem").read_bytes())
    with pytest.raises(UntrustedCertificate):
        check.identify(b"not a certificate")


def test_a_known_certificate_is_not_read_again(
    check: IdentityCheck, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = (pki / SITE / "edge.pem").read_bytes()
    first = check.identify(pem)
    monkeypatch.setattr(x509, "load_pem_x509_certificate", None)
    assert check.identify(pem) is first


def test_what_is_denied_once_is_denied_again(check: IdentityCheck, pki: Path) -> None:
    pem = leaf(pki, SITE, NATION, "relay")
    for _ in range(2):
        with pytest.raises(UntrustedCertificate, match="not this CA's to name"):
            check.identify(pem)


def test_a_missing_key_names_the_setting_and_the_file(pki: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"tls\.directory: cannot read .*nation-ca\.pem"):
        SiteCertificates(tmp_path)
    with pytest.raises(SettingsError, match=r"institution/H1\.key"):
        SiteCertificates(pki / SITE).key_pair("institution/H1")


def test_every_leaf_carries_the_name_that_clients_check(pki: Path) -> None:
    certificate = x509.load_pem_x509_certificate((pki / SITE / "edge.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert server_name(SITE) in names.get_values_for_type(x509.DNSName)
