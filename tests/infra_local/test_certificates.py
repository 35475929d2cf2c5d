from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from infra.local.certificates import ensure_authorities, ensure_site, issue_client

NOW = datetime(2026, 5, 1, 8, tzinfo=UTC)
SITE = "440000"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path, NOW)
    return tmp_path


def make(root: Path, now: datetime) -> None:
    ensure_authorities(root, ["100000", SITE], now=now)
    ensure_site(root, SITE, ["gateway", "filing"], now=now)
    issue_client(root, SITE, "institution", "H44080000001", now=now)
    issue_client(root, SITE, "operator", "local", now=now)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


LEAVES = [
    ("edge", "relay", "nation-ca"),
    ("gateway", "gateway", "site-ca"),
    ("filing", "filing", "site-ca"),
    ("institution/H44080000001", "institution/H44080000001", "site-ca"),
    ("operator/local", "operator/local", "site-ca"),
]


@pytest.mark.parametrize(("file", "who", "authority"), LEAVES)
def test_leaf_chains_to_its_ca_and_names_its_holder(
    root: Path, file: str, who: str, authority: str
) -> None:
    leaf = certificate(root / SITE / f"{file}.pem")
    anchor = certificate(root / SITE / f"{authority}.pem")
    builder = PolicyBuilder().store(Store([anchor])).time(NOW + timedelta(days=360))
    builder.build_server_verifier(x509.DNSName("localhost")).verify(leaf, [])
    builder.build_client_verifier().verify(leaf, [])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"spiffe://yidi/site/{SITE}/{who}"
    ]
    assert names.get_values_for_type(x509.DNSName) == ["localhost", f"site-{SITE}.yidi.internal"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_a_leaf_of_the_site_is_not_one_of_the_nation(root: Path) -> None:
    leaf = certificate(root / SITE / "gateway.pem")
    with pytest.raises(ValueError, match="does not match"):
        leaf.verify_directly_issued_by(certificate(root / SITE / "nation-ca.pem"))


def test_keys_are_private_and_nothing_temporary_is_left(root: Path) -> None:
    files = contents(root)
    assert {path.suffix for path in files} == {".pem", ".key"}
    for path in files:
        if path.suffix == ".key":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_valid_certificates_are_kept(root: Path) -> None:
    before = contents(root)
    make(root, NOW + timedelta(days=357))
    assert contents(root) == before


def test_leaves_are_renewed_before_they_run_out(root: Path) -> None:
    before = contents(root)
    make(root, NOW + timedelta(days=359))
    changed = {path for path, data in contents(root).items() if data != before[path]}
    assert changed == {
        root / SITE / f"{file}.{suffix}" for file, *_ in LEAVES for suffix in ("pem", "key")
    }


def test_a_new_ca_renews_its_leaves_only(root: Path) -> None:
    before = contents(root)
    (root / "ca" / f"{SITE}.key").unlink()
    make(root, NOW)
    after = contents(root)
    assert after[root / SITE / "edge.pem"] == before[root / SITE / "edge.pem"]
    leaf = certificate(root / SITE / "gateway.pem")
    leaf.verify_directly_issued_by(certificate(root / SITE / "site-ca.pem"))


@pytest.mark.parametrize("damage", ["", "-----BEGIN CERTIFICATE-----\nx\n", "another pair"])
def test_a_damaged_pair_is_made_again(root: Path, damage: str) -> None:
    path = root / SITE / "gateway.pem"
    path.write_text(damage or "")
    if damage == "another pair":
        path.write_bytes((root / SITE / "filing.pem").read_bytes())
    make(root, NOW)
    assert certificate(path).subject.rfc4514_string() == f"CN={SITE} gateway"


@pytest.mark.parametrize("name", ["", "../gateway", "a/b", "国家", "x" * 41])
def test_a_client_name_cannot_leave_its_folder(root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="only letters"):
        issue_client(root, SITE, "operator", name, now=NOW)
