from __future__ import annotations

import stat
from pathlib import Path

import pytest

from infra.local.network import (
    PORTS,
    SITES,
    NetworkPlan,
    candidate_base_port,
    choose_base_port,
    plan_network,
    write_site_files,
)
from infra.local.processes import LocalNetworkError
from infra.local.state import Passwords
from infra.runtime.config import ROLES, load_settings


def write(plan: NetworkPlan) -> None:
    write_site_files(
        plan,
        database_host="/tmp/socket",
        passwords=Passwords(
            postgres='quote " and \\',
            sites={site.code: f"of {site.code}" for site in plan.sites},
            enrollment_keys={site.code: site.code for site in plan.sites},
        ),
    )


def test_one_process_per_site(tmp_path: Path) -> None:
    plan = plan_network(tmp_path, 20_000)
    assert [(p.name, p.roles) for p in plan.processes] == [
        ("100000-0", ("relay",)),
        ("110000-0", ROLES),
        ("440000-0", ROLES),
        ("370000-0", ROLES),
    ]
    assert plan.edges("440000", "gateway") == plan.edges("440000", "relay") == ("127.0.0.1:20003",)
    assert plan.internal("440000", "filing") == plan.internal("440000", "policy")


def test_split_and_replicas(tmp_path: Path) -> None:
    plan = plan_network(tmp_path, 20_000, split=["gateway", "settlement"], replicas={"gateway": 2})
    beijing = [p for p in plan.processes if p.site == "110000"]
    assert [p.roles for p in beijing] == [
        ("enrollment", "filing", "policy", "catalog", "relay"),
        ("settlement",),
        ("gateway",),
        ("gateway",),
    ]
    assert [p.edge is not None for p in beijing] == [True, False, True, True]
    assert plan.edges("110000", "relay") == ("127.0.0.1:20002",)
    assert len(plan.internal("110000", "gateway")) == 2
    everything = plan_network(tmp_path, 20_000, split=ROLES, replicas={"gateway": 3})
    assert len(set(everything.ports)) == len(everything.ports)
    assert max(everything.ports) < everything.claim_port < 20_000 + PORTS


@pytest.mark.parametrize(
    ("split", "replicas", "text"),
    [
        (["gatway"], {}, "unknown roles gatway; known: enrollment"),
        ([], {"gateway": 0}, "replicas of gateway"),
        ([], {"gateway": 40}, "fewer replicas"),
    ],
)
def test_a_wrong_split_is_refused(
    tmp_path: Path, split: list[str], replicas: dict[str, int], text: str
) -> None:
    with pytest.raises(LocalNetworkError, match=text):
        plan_network(tmp_path, 20_000, split=split, replicas=replicas)


def test_site_files_are_settings(tmp_path: Path) -> None:
    plan = plan_network(tmp_path, 20_000, split=["relay"], replicas={"catalog": 2})
    write(plan)
    for site in plan.sites:
        path = plan.site_file(site.code)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        settings = load_settings(path, {})
        assert settings.site.areas == site.areas
        assert settings.database.name == f"y{site.code}"
        assert settings.database.admin_password.get_secret_value() == 'quote " and \\'
        assert settings.database.password.get_secret_value() == f"of {site.code}"
        assert settings.tls.directory == tmp_path / "tls" / site.code
        assert settings.allow_illustrative
        for role in site.roles:
            assert settings.roles[role] == plan.internal(site.code, role)
        if settings.is_nation:
            assert {n.code: n.edge for n in settings.neighbours} == {
                other.code: plan.edges(other.code, "relay")[0] for other in SITES[1:]
            }
            assert settings.neighbours[1].areas[1].aliases[0] == "440802"
        else:
            assert settings.nation is not None
            assert settings.nation.edge == "127.0.0.1:20001"


def test_area_codes_are_distinct() -> None:
    areas = [area for site in SITES for area in site.areas]
    codes = [code for area in areas for code in {area.code, *area.aliases}]
    assert len(codes) == len(set(codes))
    assert all(
        code[:2] == site.code[:2] for site in SITES for a in site.areas for code in a.aliases
    )


def test_base_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YIDI_BASE_PORT", raising=False)
    default = choose_base_port(tmp_path, explicit=None, saved=None)
    assert default == choose_base_port(tmp_path, explicit=None, saved=None)
    assert choose_base_port(tmp_path, explicit=None, saved=21_000) == 21_000
    monkeypatch.setenv("YIDI_BASE_PORT", "22000")
    assert choose_base_port(tmp_path, explicit=None, saved=21_000) == 22_000
    assert choose_base_port(tmp_path, explicit=23_000, saved=21_000) == 23_000
    monkeypatch.setenv("YIDI_BASE_PORT", "http")
    with pytest.raises(LocalNetworkError, match="YIDI_BASE_PORT=http"):
        choose_base_port(tmp_path, explicit=None, saved=None)
    ports = {candidate_base_port(str(n)) for n in range(2_000)}
    assert min(ports) >= 20_000
    assert max(ports) + PORTS <= 32_000
    assert len(ports) > 100


def test_only_the_named_sites_are_split(tmp_path: Path) -> None:
    plan = plan_network(tmp_path, 20_000, split=ROLES, split_sites=["440000"])
    count = {s.code: sum(p.site == s.code for p in plan.processes) for s in SITES}
    assert count == {"100000": 1, "110000": 1, "440000": len(ROLES), "370000": 1}


def test_a_network_to_be_broken(tmp_path: Path) -> None:
    plan = plan_network(
        tmp_path, 20_000, split=ROLES, postgres_per_site=True, proxied=True, failpoints=True
    )
    assert len(set(plan.ports)) == len(plan.ports)
    assert plan.postgres_port not in plan.ports
    assert max(plan.ports) < plan.claim_port
    assert [link.name for link in plan.links[:2]] == ["110000-100000", "100000-110000"]
    (tmp_path / "sites").mkdir()
    write(plan)
    nation = load_settings(plan.site_file("100000"), {})
    guangdong = load_settings(plan.site_file("440000"), {})
    ways = {link.name: link for link in plan.links}
    assert guangdong.nation is not None
    assert guangdong.nation.edge == ways["440000-100000"].listen
    assert {n.edge for n in nation.neighbours} == {
        ways[f"100000-{code}"].listen for code in ("110000", "440000", "370000")
    }
    assert ways["100000-440000"].target == plan.edges("440000", "relay")[0]
    assert guangdong.database.port == plan.own_postgres_ports["440000"] != nation.database.port
    assert guangdong.failpoints_folder == plan.failpoints_folder


def test_an_ordinary_network_cannot_be_made_to_fail(tmp_path: Path) -> None:
    plan = plan_network(tmp_path, 20_000)
    (tmp_path / "sites").mkdir()
    write(plan)
    assert load_settings(plan.site_file("440000"), {}).failpoints_folder is None
