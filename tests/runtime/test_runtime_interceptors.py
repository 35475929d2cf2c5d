"""Every interceptor answers the same in process and over a real mTLS socket (issue, item 3).

One parametrised test per interceptor: each case is one call, made through a `LocalChannel` and
through a `RemoteChannel` to the same running server; the two answers must be equal.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from fake_site import (
    AREA,
    COUNTY,
    FOREIGN_AREA,
    HOSPITAL,
    OTHER,
    OTHER_HOSPITAL,
    PERSONAL,
    SITE,
    Answer,
    Doors,
    Fakes,
    ask_both,
    builders,
    compute_unit,
    envelope,
    institution,
    operator,
    quote,
    refusal_answer,
    role,
    site_settings,
    unit_id,
)
from google.protobuf.message import Message
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from ports import free_port

from infra.runtime.call import CallerType, Identity
from infra.runtime.config import NATION
from infra.runtime.errors import MAX_VIOLATIONS, Reason, Refusal
from infra.runtime.links import RemoteChannel
from infra.runtime.server import Runtime, running
from infra.runtime.telemetry import Telemetry
from infra.runtime.tls import SiteCertificates
from yidi.common.v1 import envelope_pb2, types_pb2
from yidi.gateway.v1 import gateway_pb2
from yidi.gateway.v1.gateway_pb2_grpc import InstitutionServiceStub
from yidi.policy.v1 import policy_pb2
from yidi.policy.v1.policy_pb2_grpc import PolicyServiceStub
from yidi.relay.v1 import relay_pb2
from yidi.relay.v1.relay_pb2_grpc import RelayServiceStub

Change = Callable[[Any], None]


def computing(*units: policy_pb2.ComputeUnit) -> policy_pb2.BatchComputeRequest:
    return policy_pb2.BatchComputeRequest(items=units)


def exchanging(*envelopes: envelope_pb2.Envelope) -> relay_pb2.BatchExchangeRequest:
    return relay_pb2.BatchExchangeRequest(items=envelopes)


async def same(
    doors: Doors, caller: Identity, kind: Callable[[Any], Any], method: str, request: Message
) -> Answer:
    """The answer of both doors, which must be one."""
    local, socket = await ask_both(doors, caller, kind, method, request)
    assert local == socket
    return local


def results(answer: Answer) -> dict[str, Any]:
    """The results of a batch by id."""
    response: Any = answer.response
    return {result.id: result for result in response.results}


def refused(result: Any) -> Answer:
    """The refusal in a result of a batch."""
    return refusal_answer(Refusal.from_status(result.error))


# Validation


def _injury_without_third_party(request: gateway_pb2.QuoteRequest) -> None:
    request.bill.visit.injury = types_pb2.ANSWER_YES


def _many_faults(request: gateway_pb2.QuoteRequest) -> None:
    request.credential.type = 0  # type: ignore[assignment]
    request.credential.number = "1"
    request.bill.visit.care_area = "44"
    _injury_without_third_party(request)
    request.bill.visit.end_date = "2026-11-17"
    request.bill.visit.diagnosis_codes.extend(["C34.1", ""])
    request.bill.lines.add(line_id="2", item_code="I2", unit_price_micro_yuan=-1)


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (lambda request: None, []),
        (lambda request: request.ClearField("credential"), [("credential", "必须填写")]),
        (lambda request: request.bill.ClearField("lines"), [("bill.lines", "至少需要 1 项")]),
        (_injury_without_third_party, [("bill.visit", "外伤就医必须说明是否涉及第三方")]),
        (
            _many_faults,
            [
                ("bill.lines[1].quantity_e4", "不得为零"),
                ("bill.lines[1].unit_price_micro_yuan", "超出允许的范围"),
                ("bill.visit", "外伤就医必须说明是否涉及第三方"),
                ("bill.visit", "结束日期不得早于开始日期"),
                ("bill.visit.care_area", "格式不符合要求"),
                ("bill.visit.diagnosis_codes[1]", "不得少于 1 个字符"),
                ("credential.number", "不得少于 4 个字符"),
                ("credential.type", "必须填写接口规定的代码"),
            ],
        ),
    ],
    ids=["valid", "missing", "empty", "cel", "many"],
)
async def test_validation(doors: Doors, change: Change, faults: list[tuple[str, str]]) -> None:
    """A malformed message lists every fault at once with field paths, in plain Chinese (S4-50)."""
    request = quote()
    change(request)
    answer = await same(doors, institution(), InstitutionServiceStub, "Quote", request)
    if not faults:
        assert answer.response is not None
        return
    assert answer.refused == "MESSAGE_INVALID"
    assert sorted(answer.violations) == faults
    assert answer.details["count"] == str(len(answer.violations))


async def test_validation_of_a_whole_bill_of_faults_still_says_what_is_wrong(
    doors: Doors, fakes: Fakes
) -> None:
    """2,000 bad lines must not burst the trailer in which the answer travels."""
    request = quote()
    for number in range(1_999):
        request.bill.lines.add(line_id=str(number + 2))
    answer = await same(doors, institution(), InstitutionServiceStub, "Quote", request)
    assert (answer.refused, len(answer.violations)) == ("MESSAGE_INVALID", MAX_VIOLATIONS)
    assert int(answer.details["count"]) == 2 * 1_999
    assert fakes.calls == []


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (computing(*(compute_unit(n) for n in range(257))), ("items", "最多允许 256 项")),
        (computing(compute_unit(1), compute_unit(1)), ("items.id", "同一批次内编号不得重复")),
    ],
    ids=["257 items", "same id"],
)
async def test_validation_of_the_frame_fails_the_call(
    doors: Doors, fakes: Fakes, request_: Message, fault: tuple[str, str]
) -> None:
    """PROTOCOL §7: only the frame of a batch can fail the RPC."""
    answer = await same(doors, role("settlement"), PolicyServiceStub, "BatchCompute", request_)
    assert (answer.refused, answer.violations) == ("MESSAGE_INVALID", (fault,))
    assert fakes.calls == []


async def test_one_invalid_and_one_foreign_item_of_64_fail_alone(
    doors: Doors, fakes: Fakes
) -> None:
    units = [compute_unit(number) for number in range(64)]
    units[10].ClearField("cases")
    units[10].insurance = 0  # type: ignore[assignment]
    units[20].insured_area = FOREIGN_AREA
    answer = await same(
        doors, role("settlement"), PolicyServiceStub, "BatchCompute", computing(*units)
    )
    found = results(answer)
    assert len(found) == 64
    invalid, foreign = refused(found.pop(unit_id(10))), refused(found.pop(unit_id(20)))
    assert (invalid.refused, {field for field, _ in invalid.violations}) == (
        "MESSAGE_INVALID",
        {"cases", "insurance"},
    )
    assert (foreign.refused, foreign.details) == (
        "FOREIGN_CODE",
        {"field": "insured_area", "value": FOREIGN_AREA},
    )
    assert all(result.cases and not result.HasField("error") for result in found.values())
    for request, _ in fakes.calls:
        assert len(request.items) == 62  # type: ignore[attr-defined]


async def test_a_batch_of_bad_items_only_does_not_reach_the_handler(
    doors: Doors, fakes: Fakes
) -> None:
    request = computing(policy_pb2.ComputeUnit(id=unit_id(1)), compute_unit(2, area=FOREIGN_AREA))
    answer = await same(doors, role("settlement"), PolicyServiceStub, "BatchCompute", request)
    assert {refused(result).refused for result in results(answer).values()} == {
        "MESSAGE_INVALID",
        "FOREIGN_CODE",
    }
    assert fakes.calls == []


# Access


@pytest.mark.parametrize(
    ("caller", "method", "let_in"),
    [
        (role("settlement"), "BatchCompute", True),
        (role("gateway"), "BatchCompute", False),
        (role("relay"), "BatchCompute", False),
        (institution(), "BatchCompute", False),
        (operator(), "BatchCompute", False),
        (institution(), "Quote", True),
        (role("gateway"), "Quote", False),
        (operator(), "Quote", False),
        (role("relay", NATION), "Quote", False),
        (role("gateway"), "BatchExchange", True),
        (role("settlement"), "BatchExchange", True),
        (role("policy"), "BatchExchange", False),
        (institution(), "BatchExchange", False),
        (role("relay", NATION), "BatchExchange", True),
        (role("relay", OTHER), "BatchExchange", False),
        (operator(), "GetDirectory", True),
        (role("relay", OTHER), "GetDirectory", False),
    ],
    ids=lambda value: value.spiffe_id[16:] if isinstance(value, Identity) else str(value),
)
async def test_access(
    doors: Doors, fakes: Fakes, caller: Identity, method: str, let_in: bool
) -> None:
    """The access option in the contract decides, and nobody comes in past the nation (§5)."""
    kind, request = {
        "BatchCompute": (PolicyServiceStub, computing(compute_unit(1))),
        "Quote": (InstitutionServiceStub, quote()),
        "BatchExchange": (RelayServiceStub, exchanging(envelope(1))),
        "GetDirectory": (RelayServiceStub, relay_pb2.GetDirectoryRequest()),
    }[method]
    answer = await same(doors, caller, kind, method, request)
    assert (answer.refused == "ACCESS_DENIED") != let_in
    assert [call.caller for _, call in fakes.calls] in ([caller, caller], [])
    if not let_in:
        assert fakes.calls == []


# Ownership


@pytest.mark.parametrize(
    ("caller", "request_", "foreign"),
    [
        (institution(), quote(), {}),
        (institution(), quote(care_area=COUNTY), {}),
        (institution(OTHER_HOSPITAL), quote(), {"bill.reference.institution": HOSPITAL}),
        (institution(), quote(care_area=FOREIGN_AREA), {"bill.visit.care_area": FOREIGN_AREA}),
        (role("gateway"), exchanging(envelope(1)), {}),
        (
            role("gateway"),
            exchanging(envelope(1, care_area=FOREIGN_AREA)),
            {"origin.care_area": FOREIGN_AREA},
        ),
        (
            role("relay", NATION),
            exchanging(envelope(1, care_area=FOREIGN_AREA, insured_area=AREA)),
            {},
        ),
        (role("relay", NATION), exchanging(envelope(1)), {"insured_area": FOREIGN_AREA}),
    ],
    ids=["own", "county", "other", "care", "out", "out foreign", "in", "in foreign"],
)
async def test_ownership(
    doors: Doors, caller: Identity, request_: Message, foreign: dict[str, str]
) -> None:
    """Who calls may name only what is theirs (PROTOCOL §5, owned_by)."""
    if isinstance(request_, gateway_pb2.QuoteRequest):
        answer = await same(doors, caller, InstitutionServiceStub, "Quote", request_)
    else:
        answer = await same(doors, caller, RelayServiceStub, "BatchExchange", request_)
        result = results(answer)[unit_id(1)]
        assert result.not_forwarded == bool(foreign)
        if result.HasField("error"):
            answer = refused(result)
    if foreign:
        [(field, value)] = foreign.items()
        assert (answer.refused, answer.details) == (
            "FOREIGN_CODE",
            {"field": field, "value": value},
        )
    else:
        assert answer.refused == ""


# Deadline


@pytest.mark.parametrize("remaining_ms", [[5_000, 0, 5_000], [0, 0, 0]], ids=str)
async def test_deadline(doors: Doors, fakes: Fakes, remaining_ms: list[int]) -> None:
    """An item whose time is used up is dropped before the decision, alone, and never sent on."""
    items = [envelope(number, remaining_ms=left) for number, left in enumerate(remaining_ms)]
    answer = await same(
        doors, role("gateway"), RelayServiceStub, "BatchExchange", exchanging(*items)
    )
    found = results(answer)
    for number, left in enumerate(remaining_ms):
        result = found[unit_id(number)]
        assert result.not_forwarded == (left == 0)
        if left == 0:
            assert refused(result).refused == "DEADLINE_TOO_SHORT"
    sent = sum(left > 0 for left in remaining_ms)
    assert [len(request.items) for request, _ in fakes.calls] == [sent, sent] * bool(sent)  # type: ignore[attr-defined]


async def test_deadline_is_passed_down(doors: Doors, fakes: Fakes) -> None:
    request = quote()
    loop = asyncio.get_running_loop()
    before = loop.time()
    await ask_both(doors, institution(), InstitutionServiceStub, "Quote", request, timeout=3.0)
    for _, call in fakes.calls:
        assert before + 2.5 < call.deadline_us / 1e6 < loop.time() + 3.1


async def test_deadline_over_while_the_handler_works_is_unknown_to_the_caller(
    doors: Doors, fakes: Fakes
) -> None:
    async def never(_: Any) -> None:
        await asyncio.Event().wait()

    fakes.on_call = never
    local, socket = await ask_both(
        doors, institution(), InstitutionServiceStub, "Quote", quote(), timeout=0.3
    )
    assert local == socket
    assert (local.refused, local.details["cause"]) == ("SERVICE_UNAVAILABLE", "timeout")


# Errors


@pytest.mark.parametrize("error", [ValueError, KeyError, TimeoutError, ExceptionGroup])
async def test_errors(doors: Doors, fakes: Fakes, error: type[Exception]) -> None:
    """What nobody expected is INTERNAL with a number; neither answer nor log quotes it."""

    async def fail(_: Any) -> None:
        if error is ExceptionGroup:
            raise ExceptionGroup(PERSONAL, [ValueError(PERSONAL)])
        raise error(PERSONAL)

    fakes.on_call = fail
    with structlog.testing.capture_logs() as log:
        local, socket = await ask_both(
            doors, institution(), InstitutionServiceStub, "Quote", quote()
        )
    incidents = [answer.details["incident"] for answer in (local, socket)]
    assert [str(uuid.UUID(incident)) for incident in incidents] == incidents
    assert replace(local, details={}) == replace(socket, details={}) == Answer(None, "INTERNAL")
    assert [line["incident"] for line in log if line["event"] == "internal"] == incidents
    assert all("fake_site.py" in str(line["at"]) for line in log)
    assert PERSONAL not in str([log, local, socket])


async def test_errors_of_the_catalogue_pass_as_they_are(doors: Doors) -> None:
    request = gateway_pb2.SettleRequest(
        request_id="request-1", credential=quote().credential, bill=quote().bill
    )
    answer = await same(doors, institution(), InstitutionServiceStub, "Settle", request)
    assert answer.refused == "BILL_ALREADY_SETTLED"
    assert answer.details == {
        "bill_id": "B1",
        "settlement_id": unit_id(1),
        "request_id": "request-1",
    }


async def test_malformed_bytes_are_refused_over_the_socket(doors: Doors, fakes: Fakes) -> None:
    """In process there are no bytes; on the socket they are a fault like any other."""
    channel = doors.both(institution())["socket"]
    call = channel.unary_unary(
        "/yidi.gateway.v1.InstitutionService/Quote",
        lambda _: b"\xff\xff\xff",
        gateway_pb2.QuoteResponse.FromString,
    )
    with pytest.raises(Refusal) as refusal:
        await call(quote(), timeout=5.0)
    assert isinstance(channel, RemoteChannel)
    await channel.close()
    assert refusal.value.reason == Reason.ERROR_REASON_MESSAGE_INVALID
    assert refusal.value.violations[0].description == "不是 yidi.gateway.v1.QuoteRequest 的编码"
    assert fakes.calls == []


@pytest.mark.parametrize("who", ["wrong CA", "another site's relay", "another site's role"])
async def test_certificates_that_may_not_say_so_are_denied(
    doors: Doors, fakes: Fakes, pki: Path, who: str, tmp_path: Path
) -> None:
    """A site presenting another site's code, or a certificate of the wrong CA (issue)."""
    from datetime import UTC, datetime

    from infra.local import certificates

    authority, site, name = {
        "wrong CA": (OTHER, OTHER, "relay"),
        "another site's relay": (SITE, NATION, "relay"),
        "another site's role": ("nation", SITE, "gateway"),
    }[who]
    pair = certificates._make_leaf(
        certificates._authority(pki, authority),
        site,
        name,
        f"spiffe://yidi/site/{site}/{name}",
        datetime.now(UTC),
    )
    certificates._write(tmp_path / "edge", pair)
    for anchor in ("nation-ca.pem", "site-ca.pem"):
        (tmp_path / anchor).write_bytes((pki / SITE / anchor).read_bytes())
    listen = doors.settings.listen
    assert listen.edge is not None
    channel = RemoteChannel.open(
        [listen.edge], SiteCertificates(tmp_path).edge_client(), site=SITE, message_bytes=1 << 20
    )
    stub: Any = RelayServiceStub(channel)  # type: ignore[arg-type]
    with pytest.raises(Refusal) as refusal:
        await stub.BatchExchange(exchanging(envelope(1)), timeout=30.0)
    await channel.close()
    # A CA that nobody trusts does not get through the handshake at all.
    expected = "SERVICE_UNAVAILABLE" if who == "wrong CA" else "ACCESS_DENIED"
    assert refusal.value.name == expected
    assert fakes.calls == []


# Trace


@pytest.mark.parametrize("outcome", ["answered", "refused", "failed"])
async def test_trace(pki: Path, outcome: str) -> None:
    """A span continues the caller's trace, links those of the items, and holds no data."""
    exporter = InMemorySpanExporter()
    settings = site_settings(pki, edge=free_port(), internal=free_port())
    telemetry = Telemetry.of(settings, exporter)
    fakes, found = Fakes(), list[Runtime]()
    parent = f"00-{7:032x}-{9:016x}-01"
    links = [f"00-{11:032x}-{13:016x}-01", "", "nonsense"]
    items = [envelope(n, traceparent=text) for n, text in enumerate(links)]
    if outcome == "refused":
        items.append(items[0])

    async def fail(_: Any) -> None:
        raise ValueError(PERSONAL)

    if outcome == "failed":
        fakes.on_call = fail
    async with running(settings, builders(fakes, found.append), telemetry=telemetry):
        doors = Doors(pki, settings, found[0].dispatcher)
        with structlog.testing.capture_logs():
            local, socket = await ask_both(
                doors,
                Identity(SITE, CallerType.ROLE, "gateway"),
                RelayServiceStub,
                "BatchExchange",
                exchanging(*items),
                traceparent=parent,
            )
    expected = {"answered": "", "refused": "MESSAGE_INVALID", "failed": "INTERNAL"}[outcome]
    assert local.refused == socket.refused == expected
    spans = exporter.get_finished_spans()
    assert len(spans) == 2
    for span in spans:
        assert span.name == "/yidi.relay.v1.RelayService/BatchExchange"
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == (7, 9)
        assert {link.context.trace_id for link in span.links} == {11}
        assert span.status.status_code == (StatusCode.ERROR if expected else StatusCode.UNSET)
        assert (span.status.description or "") == expected
        assert PERSONAL not in span.to_json()
        assert not span.events
    for (_, call), span in zip(fakes.calls, spans, strict=outcome == "answered"):
        assert span.context is not None
        assert call.traceparent == f"00-{7:032x}-{span.context.span_id:016x}-01"


async def test_trace_costs_nothing_without_an_endpoint(doors: Doors, fakes: Fakes) -> None:
    parent = f"00-{7:032x}-{9:016x}-01"
    await ask_both(
        doors, institution(), InstitutionServiceStub, "Quote", quote(), traceparent=parent
    )
    assert [call.traceparent for _, call in fakes.calls] == [parent, parent]
    assert not Telemetry.of(doors.settings).enabled


async def test_the_handler_gets_a_copy(doors: Doors, fakes: Fakes) -> None:
    async def spoil(request: Any) -> None:
        request.bill.total_fen = 1

    fakes.on_call = spoil
    request = quote()
    await same(doors, institution(), InstitutionServiceStub, "Quote", request)
    assert request == quote()
