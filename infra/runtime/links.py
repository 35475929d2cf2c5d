"""How a caller reaches a method: over mTLS, or in process through the same interceptors.

Both kinds of channel take the generated stubs (`stub(PolicyServiceStub, channel)`), need a timeout
on every call, and raise `Refusal` for whatever goes wrong. Over a socket that includes the errors
that gRPC makes itself; after an exchange has begun none of them says that nothing happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from infra.runtime.call import Call, Identity
from infra.runtime.clock import monotonic_us
from infra.runtime.contract import Method
from infra.runtime.errors import Reason, Refusal
from infra.runtime.interceptors import Handler
from infra.runtime.tls import server_name

STATUS_KEY = "grpc-status-details-bin"
TRACE_KEY = "traceparent"
_KEEPALIVE_MS = 30_000
S = TypeVar("S")


class Channel(Protocol):
    """What a generated stub needs; two implementations, `LocalChannel` and `RemoteChannel`."""

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,
    ) -> Callable[..., Awaitable[Any]]:
        """A callable for one method: `await call(request, timeout=seconds)`."""
        ...


def stub(kind: Callable[[grpc.aio.Channel], S], channel: Channel) -> S:
    """The generated stub `kind` on either kind of channel."""
    return kind(cast(grpc.aio.Channel, channel))


class Dispatcher:
    """The methods that this process serves, each behind its interceptors."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Method, Handler]] = {}

    def add(self, method: Method, handler: Handler) -> None:
        """Serve `method` with a handler that is already behind its interceptors."""
        self._handlers[method.path] = (method, handler)

    def find(self, path: str) -> tuple[Method, Handler] | None:
        """The method and handler of a path."""
        return self._handlers.get(path)

    def methods(self) -> list[Method]:
        """Every method served."""
        return [method for method, _ in self._handlers.values()]


class LocalChannel:
    """Calls methods of the same process as `identity`; the callee gets a copy of the message."""

    def __init__(self, dispatcher: Dispatcher, identity: Identity) -> None:
        self._dispatcher = dispatcher
        self._identity = identity

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,
    ) -> Callable[..., Awaitable[Any]]:
        found: tuple[Method, Handler] | None = None

        async def call(request: Message, *, timeout: float, traceparent: str = "") -> Message:
            nonlocal found
            found = found or self._dispatcher.find(path)
            if found is None:
                raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service=path)
            copy = type(request)()
            copy.CopyFrom(request)
            deadline_us = monotonic_us() + int(timeout * 1e6)
            try:
                async with asyncio.timeout(timeout):
                    return await found[1](copy, Call(self._identity, deadline_us, traceparent))
            except TimeoutError as error:
                raise timed_out(path) from error

        return call


class RemoteChannel:
    """Calls methods of another process over mTLS."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    @classmethod
    def open(
        cls,
        addresses: Sequence[str],
        credentials: grpc.ChannelCredentials,
        *,
        site: str,
        message_bytes: int,
    ) -> RemoteChannel:
        """A channel to the replicas at `addresses`, which must be site `site`."""
        target = addresses[0] if len(addresses) == 1 else "ipv4:" + ",".join(addresses)
        options: list[tuple[str, Any]] = [
            ("grpc.ssl_target_name_override", server_name(site)),
            ("grpc.max_receive_message_length", message_bytes),
            ("grpc.max_send_message_length", message_bytes),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            # Each hop sends once: a commit must never be repeated behind our back.
            ("grpc.enable_retries", 0),
            ("grpc.service_config", '{"loadBalancingConfig":[{"round_robin":{}}]}'),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        return cls(grpc.aio.secure_channel(target, credentials, options=options))

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,
    ) -> Callable[..., Awaitable[Any]]:
        inner = self._channel.unary_unary(path, request_serializer, response_deserializer)

        async def call(request: Message, *, timeout: float, traceparent: str = "") -> Any:
            metadata = ((TRACE_KEY, traceparent),) if traceparent else None
            try:
                answer = await inner(request, timeout=timeout, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                raise _refusal(path, error) from error
            if answer is None:  # what gRPC makes of bytes that are no message
                raise Refusal(
                    Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service=path, cause="unreadable"
                )
            return answer

        return call

    async def connected(self, seconds: float) -> bool:
        """Whether there is a connection, after at most `seconds` of trying."""
        try:
            async with asyncio.timeout(seconds):
                await self._channel.channel_ready()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def timed_out(path: str) -> Refusal:
    """The caller's time ran out: for the caller the callee is not available."""
    return Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service=path, cause="timeout")


def _refusal(path: str, error: grpc.aio.AioRpcError) -> Refusal:
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_KEY and isinstance(value, bytes):
            return Refusal.from_status(status_pb2.Status.FromString(value))
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return timed_out(path)
    code = error.code().value[0]
    made_by_grpc = Refusal.from_status(status_pb2.Status(code=code))
    made_by_grpc.details["service"] = path
    made_by_grpc.details["cause"] = code_pb2.Code.Name(code).lower()
    return made_by_grpc
