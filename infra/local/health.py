"""Wait for the health of started processes, over mTLS as any other caller inside a site."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


@dataclass(frozen=True)
class Target:
    """The internal listener of one process, and the certificates to call it with."""

    name: str
    address: str
    tls: Path
    role: str


def wait_healthy(
    targets: Sequence[Target], *, timeout_s: float, check: Callable[[], None]
) -> list[str]:
    """Ask each target until it is SERVING; return what was wrong with those that are not.

    `check` is called between two questions and raises when waiting is pointless. To be
    called when every child has been started: a fork beside gRPC's threads is not safe.
    """
    end = time.monotonic() + timeout_s
    faults = []
    for target in targets:
        if (fault := _wait_one(target, end, check)) is not None:
            faults.append(f"{target.name} at {target.address}: {fault}")
    return faults


def _wait_one(target: Target, end: float, check: Callable[[], None]) -> str | None:
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(target.tls / "site-ca.pem").read_bytes(),
        private_key=(target.tls / f"{target.role}.key").read_bytes(),
        certificate_chain=(target.tls / f"{target.role}.pem").read_bytes(),
    )
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
    with grpc.secure_channel(target.address, credentials, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            check()
            try:
                answer = stub.Check(
                    health_pb2.HealthCheckRequest(), timeout=0.5, wait_for_ready=True
                )
            except grpc.RpcError as error:
                fault = f"{error.code().name} {error.details()}"
            else:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return None
                fault = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
            if time.monotonic() > end:
                return fault
            # A process that answers "not serving" answers at once: do not spin on it.
            time.sleep(0.05)
