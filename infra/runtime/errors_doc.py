"""Writes `docs/errors.md` from the error catalogue: `python -m infra.runtime.errors_doc`.

Everything in it comes from `enum ErrorReason` and its options, so the page cannot differ from
what the services answer; a test compares.
"""

from __future__ import annotations

import string
from pathlib import Path

from google.rpc import code_pb2

from infra.runtime.errors import DOMAIN, Reason, spec
from yidi.common.v1 import errors_pb2, options_pb2

TARGET = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
PLACEHOLDERS = {
    "action": "what was to be done to a filing",
    "actual": "insurance type that the person has on the day 险种, in Chinese",
    "allowed": "channels that may be used, in Chinese",
    "area": "pooling area, by name or code 统筹区",
    "bill_id": "bill number of the institution 单据号",
    "cause": "why, a short Chinese text",
    "channel": "channel of the request 渠道, in Chinese",
    "chosen": "institutions the person is bound to, by code 选定或签约机构",
    "count": "number of faults; at most 50 are listed",
    "date": "day, ISO",
    "disease": "chronic disease code 病种编码",
    "due": "last day for handling, ISO",
    "expired": "last day of the filing, ISO",
    "field": "path of the field, as in the contract",
    "filed": "what was filed: places 备案就医地, an insurance or a disease",
    "filing": "id of a filing 备案编号",
    "from": "first day, ISO",
    "import": "id of an import",
    "incident": "number under which the platform's log has the place of the fault",
    "institution": "code of the institution 医药机构编号",
    "insurance": "insurance type 险种, in Chinese",
    "kind": "filing kind 备案类型, in Chinese",
    "line_id": "line number within the bill",
    "missing": "what is missing: a policy's statement or a material, in Chinese",
    "notice": "what the platform says about its downtime",
    "original_id": "settlement that is to be undone",
    "place": "care place 就医地, by name",
    "posting_id": "id of a posting from outside",
    "request_id": "request id of the settlement",
    "seconds": "seconds between publication and use, at least",
    "service": "service of this platform",
    "settlement_id": "settlement id",
    "since": "day since when, ISO",
    "site": "platform that cannot be reached, by name",
    "start": "first day of the filing, ISO",
    "state": "state of the settlement or filing",
    "sum": "sum of the lines, yuan",
    "total": "total as stated, yuan",
    "undo_id": "settlement that undid the original",
    "until": "end of a downtime, or last day, ISO",
    "value": "value as sent",
    "version": "policy document: area/insurance/version, id of a draft; or the version of a row",
}
"""What the placeholders of the catalogue's sentences hold; each travels as metadata."""

_STAGES = {
    options_pb2.ERROR_STAGE_INSTITUTION: "医药机构",
    options_pb2.ERROR_STAGE_CARE_PROVINCE: "就医省",
    options_pb2.ERROR_STAGE_NATION: "国家",
    options_pb2.ERROR_STAGE_INSURED_PROVINCE: "参保省",
    options_pb2.ERROR_STAGE_INSURED_AREA: "参保统筹区",
}
_HEAD = f"""\
# Error catalogue

Generated from `enum ErrorReason` (`protos/yidi/common/v1/errors.proto`) by
`python -m infra.runtime.errors_doc`. Do not edit.

On the wire every error is a `google.rpc.Status` (trailer `grpc-status-details-bin`, or `error` in
the result of one item of a batch) with `ErrorInfo` (domain `{DOMAIN}`; the reason as below; the
values of the placeholders, `stage`, `class`, `decided` and `next_step` as metadata),
`LocalizedMessage` (zh-CN), and `BadRequest` or `RetryInfo` where they apply.

*Decided* means that the insured place has decided and the refusal is final for its settlement id.
*Retry* means that the same call may be made again as it is after the delay in `RetryInfo`.
"""


def placeholders(template: str) -> list[str]:
    """The names of the placeholders in a sentence."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


def document() -> str:
    """The page, Markdown."""
    reasons = [value for value in Reason.values() if value != Reason.ERROR_REASON_UNSPECIFIED]
    lines = [_HEAD, "| reason | gRPC status | stage | class | decided | retry |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [_row(reason) for reason in reasons]
    lines += ["", "## Sentences", ""]
    lines += ["| reason | 说明 | 下一步 |", "|---|---|---|"]
    lines += [
        f"| `{_name(reason)}` | {spec(reason).message} | {spec(reason).next_step} |"
        for reason in reasons
    ]
    lines += ["", "## Placeholders", "", "| placeholder | what it holds |", "|---|---|"]
    lines += [f"| `{{{name}}}` | {meaning} |" for name, meaning in PLACEHOLDERS.items()]
    return "\n".join(lines) + "\n"


def _row(reason: errors_pb2.ErrorReason.ValueType) -> str:
    known = spec(reason)
    of_class = options_pb2.ErrorClass.Name(getattr(known, "class"))  # a keyword in Python
    cells = [
        f"`{_name(reason)}`",
        code_pb2.Code.Name(known.code),
        _STAGES[known.stage],
        of_class.removeprefix("ERROR_CLASS_").lower(),
        "yes" if known.decided else "",
        "yes" if known.retryable else "",
    ]
    return f"| {' | '.join(cells)} |"


def _name(reason: errors_pb2.ErrorReason.ValueType) -> str:
    return Reason.Name(reason).removeprefix("ERROR_REASON_")


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
