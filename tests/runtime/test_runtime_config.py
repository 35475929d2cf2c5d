"""Settings say which key is wrong, all of them at once (issue: typed settings)."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.runtime.config import SettingsError, load_settings

GOOD = """
[site]
code = "440000"
name = "广东省"
areas = [{code = "440800", name = "湛江市", aliases = ["440802"]}]

[nation]
edge = "127.0.0.1:7000"

[roles]
policy = ["127.0.0.1:7001", "127.0.0.1:7002"]

[database]
host = "127.0.0.1"
name = "yidi_440000"
password = "from the file"

[tls]
directory = "certificates"
"""


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def fault(path: Path, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(path, environment or {})
    return str(refused.value)


def test_a_good_file_is_read_with_its_defaults(site_file: Path) -> None:
    settings = load_settings(site_file, {})
    assert settings.site.areas[0].aliases == ("440802",)
    assert settings.roles["policy"] == ("127.0.0.1:7001", "127.0.0.1:7002")
    assert (settings.limits.settle_ms, settings.limits.hop_margin_ms) == (6_000, 50)
    assert not settings.is_nation
    assert not settings.allow_illustrative


def test_the_environment_wins_and_secrets_do_not_show(site_file: Path) -> None:
    environment = {
        "YIDI_DATABASE__PASSWORD": "from the environment",
        "YIDI_LIMITS__SETTLE_MS": "9000",
        "YIDI_HOME": "/elsewhere",
        "OTHER__THING": "1",
    }
    settings = load_settings(site_file, environment)
    assert settings.database.password.get_secret_value() == "from the environment"
    assert settings.limits.settle_ms == 9_000
    assert "from the environment" not in repr(settings)


def test_every_wrong_key_is_named_at_once(site_file: Path) -> None:
    text = GOOD.replace('host = "127.0.0.1"', "port = 'many'").replace('"440000"', '"gd"')
    site_file.write_text(text + "colour = 'red'\n", encoding="utf-8")
    said = fault(site_file)
    assert str(site_file) in said
    for key in ("site.code:", "database.host:", "database.port:", "tls.colour:"):
        assert key in said


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("YIDI_DATABASE__PORT", "database.port"),
        ("YIDI_LIMITS__BATCH_ITEMS", "limits.batch_items"),
        ("YIDI_DATABASE__NO_SUCH_KEY", "database.no_such_key"),
    ],
)
def test_a_wrong_override_names_its_key_and_not_its_value(
    site_file: Path, name: str, key: str
) -> None:
    said = fault(site_file, {name: "s3cret"})
    assert f"{key}:" in said
    assert "s3cret" not in said


def test_an_override_below_a_plain_value_names_the_variable(site_file: Path) -> None:
    said = fault(site_file, {"YIDI_SITE__CODE__DIGIT": "1"})
    assert "YIDI_SITE__CODE__DIGIT" in said


def test_missing_folder_and_broken_files_are_told_apart(site_file: Path, tmp_path: Path) -> None:
    assert "No such file" in fault(tmp_path / "none.toml")
    assert "Is a directory" in fault(tmp_path)
    site_file.write_text("[site\n", encoding="utf-8")
    assert "not valid TOML" in fault(site_file)
    site_file.write_bytes(b"\xff\xfe")
    assert "not valid TOML" in fault(site_file)


def test_a_province_must_know_the_nation_and_only_known_roles(site_file: Path) -> None:
    site_file.write_text(GOOD.replace('[nation]\nedge = "127.0.0.1:7000"', ""), encoding="utf-8")
    assert "nation.edge is missing" in fault(site_file)
    site_file.write_text(GOOD.replace("policy =", "polcy ="), encoding="utf-8")
    assert "unknown role ['polcy']" in fault(site_file)


def test_the_nation_needs_no_nation(site_file: Path) -> None:
    text = GOOD.replace("440000", "100000").replace('[nation]\nedge = "127.0.0.1:7000"', "")
    site_file.write_text(text, encoding="utf-8")
    assert load_settings(site_file, {}).is_nation
