"""Spans and hop times.

Without an OTLP endpoint there is no tracer and every function here returns at once. With one, each
server call makes a span that continues the caller's trace; the items of a batch, which may come
from many traces, are links. Names of spans are the methods' names; nothing of a message goes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags

from infra.runtime.clock import monotonic_us
from infra.runtime.config import Settings
from infra.runtime.errors import Refusal
from yidi.common.v1 import envelope_pb2, types_pb2

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter


class Telemetry:
    """The tracer of one process, or nothing."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("yidi") if provider else None

    @classmethod
    def of(cls, settings: Settings, exporter: SpanExporter | None = None) -> Telemetry:
        """The telemetry that the settings ask for; `exporter` replaces the network in tests."""
        endpoint = settings.telemetry.otlp_endpoint
        if exporter is None and endpoint is None:
            return cls(None)
        # The SDK and the exporter are slow to import, and most processes have no endpoint.
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True)
        provider = TracerProvider(
            resource=Resource.create({"service.name": f"yidi-{settings.site.code}"}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    @property
    def enabled(self) -> bool:
        """Whether spans are made."""
        return self._tracer is not None

    @contextmanager
    def server_span(self, name: str, traceparent: str, items: Iterable[str] = ()) -> Iterator[str]:
        """A span around a server call; yields the traceparent to pass on."""
        if self._tracer is None:
            yield traceparent
            return
        parent = _span_context(traceparent)
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent)) if parent else None
        links = [Link(linked) for linked in map(_span_context, items) if linked]
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=SpanKind.SERVER,
            links=links,
            # An error's text and the errors behind it quote data: only its reason goes in.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            own = span.get_span_context()
            try:
                yield f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
            except BaseException as error:
                reason = error.name if isinstance(error, Refusal) else type(error).__name__
                span.set_status(StatusCode.ERROR, reason)
                raise

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def _span_context(traceparent: str) -> SpanContext | None:
    parts = traceparent.split("-")
    if len(parts) != 4:
        return None
    try:
        context = SpanContext(
            int(parts[1], 16), int(parts[2], 16), True, TraceFlags(int(parts[3], 16))
        )
    except ValueError:
        return None
    return context if context.is_valid else None


class Stopwatch:
    """Adds up the time of hops, each its own, in microseconds."""

    __slots__ = ("_last", "_spent", "started")

    def __init__(self) -> None:
        self.started = self._last = monotonic_us()
        self._spent: dict[types_pb2.Hop.ValueType, int] = {}

    @classmethod
    def since(cls, earlier: Stopwatch) -> Stopwatch:
        """A watch with the start of an earlier one and nothing booked, its lap begun now."""
        watch = cls()
        watch.started = earlier.started
        return watch

    def lap(self, hop: types_pb2.Hop.ValueType, *, beyond_us: int = 0) -> None:
        """Book the time since the last lap, less what was spent beyond, to `hop`."""
        now = monotonic_us()
        self._spent[hop] = self._spent.get(hop, 0) + max(now - self._last - beyond_us, 0)
        self._last = now

    def hops(self) -> list[envelope_pb2.HopTime]:
        """What has been booked, in the order it was begun."""
        return [
            envelope_pb2.HopTime(hop=hop, duration_us=spent) for hop, spent in self._spent.items()
        ]

    @property
    def elapsed_us(self) -> int:
        """Microseconds since the start."""
        return monotonic_us() - self.started
