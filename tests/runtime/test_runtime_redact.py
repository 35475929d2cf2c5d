"""Nothing that the contracts mark as personal reaches a log (DESIGN §3)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog
from fake_site import PERSONAL, quote

from infra.runtime.redact import HIDDEN, configure_logs, redacted, where
from yidi.common.v1 import envelope_pb2, visit_pb2

SECRET = "440802195001011234"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Where the configured logs go."""
    out = io.StringIO()
    before = structlog.get_config()
    configure_logs("info")
    structlog.configure(
        logger_factory=structlog.WriteLoggerFactory(out), cache_logger_on_first_use=False
    )
    yield out
    structlog.configure(**before)


def test_marked_fields_are_hidden_at_every_depth_and_bytes_show_their_size() -> None:
    shown = redacted(quote())
    assert shown["credential"] == {"type": 2, "number": HIDDEN, "name": HIDDEN}
    assert shown["bill"]["reference"]["visit_id"] == "V1"
    assert SECRET not in str(shown)
    envelope = envelope_pb2.Envelope(payload=b"secret", payload_digest=bytes(32))
    assert redacted(envelope) == {"payload": HIDDEN, "payload_digest": "32 bytes"}


def test_repeated_marked_fields_are_hidden_whole() -> None:
    assert redacted(visit_pb2.Visit(diagnosis_codes=["C34.1"])) == {"diagnosis_codes": HIDDEN}


@pytest.mark.parametrize("wrap", ["message", "list", "tuple", "dict", "nested"])
def test_messages_are_redacted_wherever_a_log_call_puts_them(log: io.StringIO, wrap: str) -> None:
    credential = quote().credential
    value = {
        "message": credential,
        "list": [credential],
        "tuple": (credential, 1),
        "dict": {"one": credential},
        "nested": {"deep": [{"er": (credential,)}]},
    }[wrap]
    structlog.get_logger("test").info("seen", value=value, count=1)
    line = json.loads(log.getvalue())
    assert (line["event"], line["level"], line["count"]) == ("seen", "info", 1)
    assert HIDDEN in log.getvalue()
    assert SECRET not in log.getvalue()
    assert "王小明" not in log.getvalue()


def test_below_the_level_nothing_is_written(log: io.StringIO) -> None:
    structlog.get_logger("test").debug("seen")
    assert log.getvalue() == ""


def test_an_error_is_known_by_type_and_place_and_not_by_its_text() -> None:
    try:
        raise KeyError(PERSONAL)
    except KeyError as error:
        places = where(error)
    assert places[0] == "KeyError"
    assert "test_runtime_redact.py" in places[1]
    assert PERSONAL not in str(places)
