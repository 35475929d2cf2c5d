"""A stand-in for `yidi serve` (standard health over mTLS), and a caller of `up` to be killed.

local_stand_in.py serve --site FILE --roles a,b
local_stand_in.py up HOME BASE_PORT
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.local.network import SITES
from infra.local.processes import LocalNetworkError
from infra.local.supervisor import up
from infra.runtime.config import Settings, load_settings

COMMAND = (sys.executable, __file__, "serve")
TWO_SITES = SITES[:2]


def prepare(settings: Settings) -> None:
    print(f"prepared {settings.site.code}", flush=True)


def prepare_badly(settings: Settings) -> None:
    raise LocalNetworkError(f"{settings.site.code} cannot be migrated")


def eventually(condition: Callable[[], object], *, timeout_s: float = 30) -> None:
    """Poll a real condition within a bound."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        threading.Event().wait(0.02)


def serve(site: Path, roles: list[str]) -> None:
    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    settings = load_settings(site)
    assert settings.listen.internal is not None
    tls = settings.tls.directory
    server = grpc.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    pair = ((tls / f"{roles[0]}.key").read_bytes(), (tls / f"{roles[0]}.pem").read_bytes())
    credentials = grpc.ssl_server_credentials(
        [pair], (tls / "site-ca.pem").read_bytes(), require_client_auth=True
    )
    server.add_secure_port(settings.listen.internal, credentials)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    server.start()
    print("edge", settings.listen.edge, flush=True)
    ended.wait()
    server.stop(1).wait()


def main(arguments: list[str]) -> int:
    match arguments:
        case ["serve", "--site", site, "--roles", roles]:
            serve(Path(site), roles.split(","))
        case ["up", home, base_port]:
            up(
                Path(home),
                prepare=prepare,
                base_port=int(base_port),
                on_progress=lambda text: print(text, flush=True),
                sites=TWO_SITES,
                command=COMMAND,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
