"""The error catalogue is complete, plain and documented (S4-50; DESIGN §3)."""

from __future__ import annotations

import re

import pytest
from contract_files import ROOT
from google.rpc import code_pb2

from infra.runtime.errors import Reason, grpc_code, spec
from infra.runtime.errors_doc import PLACEHOLDERS, TARGET, document, placeholders
from yidi.common.v1 import errors_pb2, options_pb2

REASONS = [value for value in Reason.values() if value != Reason.ERROR_REASON_UNSPECIFIED]

INSURED_STAGES = (options_pb2.ERROR_STAGE_INSURED_AREA, options_pb2.ERROR_STAGE_INSURED_PROVINCE)
"""An area's rules decide, or the settlement system of its province does."""
FINAL_CODES = (
    code_pb2.FAILED_PRECONDITION,
    code_pb2.ABORTED,
    code_pb2.NOT_FOUND,
    code_pb2.ALREADY_EXISTS,
)


@pytest.mark.parametrize("reason", REASONS, ids=Reason.Name)
def test_every_reason_says_all_there_is_to_say(reason: errors_pb2.ErrorReason.ValueType) -> None:
    known = spec(reason)
    assert known.code not in (code_pb2.OK, code_pb2.UNKNOWN)
    assert known.code in code_pb2.Code.values()
    assert known.stage != options_pb2.ERROR_STAGE_UNSPECIFIED
    assert getattr(known, "class") != options_pb2.ERROR_CLASS_UNSPECIFIED
    for text in (known.message, known.next_step):
        assert text.endswith("。")
        assert len(text) <= 80
        assert re.search("[一-鿿]", text)
        assert not re.search(r"[,;?!]|\.$", text), "Chinese texts use Chinese punctuation"
    assert known.message.count("。") == 1


@pytest.mark.parametrize("reason", REASONS, ids=Reason.Name)
def test_decided_refusals_are_the_insured_places_and_never_retried(
    reason: errors_pb2.ErrorReason.ValueType,
) -> None:
    """PROTOCOL §1: a decided refusal is final; what may pass is not a decision."""
    known = spec(reason)
    if known.decided:
        assert known.stage in INSURED_STAGES
        assert not known.retryable
        assert known.code in FINAL_CODES
    if known.retryable:
        assert known.code in (
            code_pb2.UNAVAILABLE,
            code_pb2.RESOURCE_EXHAUSTED,
            code_pb2.DEADLINE_EXCEEDED,
        )


def test_placeholders_are_documented_and_used() -> None:
    used = {
        name
        for reason in REASONS
        for text in (spec(reason).message, spec(reason).next_step)
        for name in placeholders(text)
    }
    assert used == PLACEHOLDERS.keys()


def test_the_comment_of_a_reason_is_its_sentence() -> None:
    text = (ROOT / "protos/yidi/common/v1/errors.proto").read_text(encoding="utf-8")
    comments = dict(re.findall(r"  // (.*)\n  (ERROR_REASON_\w+) = \d+ \[", text))
    written = {name: comment for comment, name in comments.items()}
    assert written == {Reason.Name(reason): spec(reason).message for reason in REASONS}


def test_names_and_sentences_are_unique() -> None:
    sentences = [spec(reason).message for reason in REASONS]
    assert len(set(sentences)) == len(sentences)


def test_the_page_is_what_the_catalogue_makes() -> None:
    assert TARGET.read_text(encoding="utf-8") == document(), "python -m infra.runtime.errors_doc"


def test_every_code_is_one_that_grpc_has() -> None:
    from google.rpc import status_pb2

    for reason in REASONS:
        assert grpc_code(status_pb2.Status(code=spec(reason).code)).value[0] == spec(reason).code
