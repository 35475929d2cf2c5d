"""Start, watch and stop a whole local network: `yidi up`, `down`, `status`, and test networks.

One supervisor owns a home folder (a lock says so) and everything in it:

    lock  state.json  secrets.toml  tls/  sites/  logs/  logs.previous/  postgres/  up.log

Every process is its child and dies with it, even when it is killed by SIGKILL; what a killed
one could not tidy up, the next `up` does, from state.json. Every wait has a bound.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from infra.local.certificates import ensure_authorities, ensure_site, issue_client
from infra.local.files import tail
from infra.local.health import Target, wait_healthy
from infra.local.network import (
    SITES,
    LocalSite,
    NetworkPlan,
    Process,
    candidate_base_port,
    choose_base_port,
    plan_network,
    write_site_files,
)
from infra.local.postgres import Postgres, stop_left_over
from infra.local.processes import (
    Identity,
    LocalNetworkError,
    PortInUseError,
    claim_port,
    require_free_ports,
    stop_processes,
    tied_to_parent,
    wait_until,
)
from infra.local.proxy import Proxies
from infra.local.state import (
    ensure_passwords,
    identity,
    locked,
    read_state,
    write_state,
)
from infra.runtime.clock import SystemClock, instant
from infra.runtime.config import Settings, load_settings

OPERATOR, REVIEWER = "local", "reviewer"
"""Operators of each site whose certificates are made with the network: some acts need two people;
the first one acts where none is named."""
HEALTHY_S = 60.0
DRAIN_S = 15.0
"""Bound of a graceful stop; a site's own limit (`limits.drain_ms`) is well below."""
DOWN_S = 60.0

Prepare = Callable[[Settings], None]
"""Creates, migrates and seeds the database of one site; called with PostgreSQL running."""
Progress = Callable[[str], None]
OnHealthy = Callable[[Path, Progress], None]
"""Finishes a start over the running network's own contracts; raises when it does not work."""

SERVE = (sys.executable, "-m", "infra.cli.main", "serve")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `up` starts, and how."""

    home: Path
    prepare: Prepare
    base_port: int | None = None
    fresh: bool = False
    split: Sequence[str] = ()
    split_sites: Sequence[str] | None = None
    replicas: Mapping[str, int] = field(default_factory=dict)
    sites: Sequence[LocalSite] = SITES
    postgres_per_site: bool = False
    proxied: bool = False
    failpoints: bool = False
    command: Sequence[str] = SERVE
    """Called with `--site FILE --roles a,b`; its addresses are in its environment."""
    on_healthy: OnHealthy | None = None
    """Called once with the home when every process serves, before the state says `running`."""


class StopRequested(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP has come."""


class StopSignals:
    """Turns the signals that ask for an end into `StopRequested`, never while held."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._holds = 0
        self._pending = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            raise LocalNetworkError("the local network must be started from the main thread")
        self._former = {number: signal.signal(number, self._handle) for number in self._NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._holds:
            self._pending = True
        else:
            raise StopRequested(signal.Signals(number).name)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Between a process being started and being recorded no signal may cut in."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if self._pending and not self._holds:
            self._pending = False
            raise StopRequested

    def ignore(self) -> None:
        """From now on they change nothing: what is under way is the bounded stop itself."""
        self._holds += 1


@dataclass
class Child:
    """One started process of the network."""

    plan: Process
    process: subprocess.Popen[bytes]
    log: Path


class Network:
    """One running network; the home's lock must be held by the caller."""

    def __init__(self, plan: NetworkPlan, options: Options, on_progress: Progress) -> None:
        self.plan = plan
        self.home = plan.home
        self.children: dict[str, Child] = {}
        self.postgres: Postgres | None = None
        """The one of the network; None when each site has its own, in `databases`."""
        self.databases: dict[str, Postgres] = {}
        """Site → its PostgreSQL."""
        self.proxies: Proxies | None = None
        self._options = options
        self._progress = on_progress
        self._claim: socket.socket | None = None
        self._status = ""
        """What state.json says; empty while the home is untouched."""

    def start(self, signals: StopSignals) -> None:
        """Bring everything up and return when it is healthy; else nothing is left running."""
        try:
            self._start(signals)
        except BaseException:
            signals.ignore()
            self.stop()
            raise

    def _start(self, signals: StopSignals) -> None:
        self._claim = claim_port(self.plan.claim_port)
        require_free_ports(self.plan.ports)
        self._record("starting")
        self._rotate_logs()
        if self._options.fresh:
            shutil.rmtree(self.home / "postgres", ignore_errors=True)
            if (self.home / "postgres").exists():
                raise LocalNetworkError(f"cannot delete {self.home / 'postgres'}")
        self._make_certificates()
        self._start_database(signals)
        for site in self.plan.sites:
            self._progress(f"preparing the database of {site.code} {site.name}")
            self._options.prepare(load_settings(self.plan.site_file(site.code)))
        if self.plan.failpoints:
            self.plan.failpoints_folder.mkdir(mode=0o700, exist_ok=True)
        if self.plan.links:
            with signals.held():
                self.proxies = Proxies.start(self.plan.links)
        for process in self.plan.processes:
            with signals.held():
                self.spawn(process)
        self._progress(f"waiting for {len(self.children)} processes")
        self.wait_healthy()
        if self._options.on_healthy is not None:
            self._options.on_healthy(self.home, self._progress)
        self._record("running")

    def spawn(self, process: Process) -> Child:
        """Start one process of the plan, in the place of one that has ended."""
        log = self.home / "logs" / f"{process.name}.log"
        environment = os.environ | {
            "YIDI_LISTEN__INTERNAL": process.internal,
            # A serving process never forks, and gRPC's guard against it costs time.
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }
        environment.pop("YIDI_LISTEN__EDGE", None)
        if process.edge:
            environment["YIDI_LISTEN__EDGE"] = process.edge
        arguments = ["--site", str(self.plan.site_file(process.site))]
        arguments += ["--roles", ",".join(process.roles)]
        with log.open("ab") as output:
            started = subprocess.Popen(
                tied_to_parent([*self._options.command, *arguments], "TERM"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                # Ctrl-C in the terminal is for the supervisor, which stops them in order.
                start_new_session=True,
            )
        child = Child(process, started, log)
        self.children[process.name] = child
        self._record(self._status)
        return child

    def wait_healthy(self) -> None:
        """Return when every process serves; raise with the log of one that does not."""
        targets = [
            Target(name, c.plan.internal, self.plan.tls(c.plan.site), c.plan.roles[0])
            for name, c in self.children.items()
        ]
        if faults := wait_healthy(targets, timeout_s=HEALTHY_S, check=self.check):
            name = faults[0].split(" ", 1)[0]
            raise LocalNetworkError(
                f"not healthy within {HEALTHY_S:.0f} s: {'; '.join(faults)}\n"
                + tail(self.children[name].log)
            )

    def check(self) -> None:
        """Raise, with the end of its log, when a process of the network has ended."""
        for name, child in self.children.items():
            code = child.process.poll()
            if code is not None:
                how = f"code {code}" if code >= 0 else signal.Signals(-code).name
                raise LocalNetworkError(
                    f"process {name} ({', '.join(child.plan.roles)}) ended with {how}; its log"
                    f" {child.log} ends with:\n{tail(child.log)}"
                )
        for postgres in {id(one): one for one in self.databases.values()}.values():
            if postgres.pid is None:
                raise LocalNetworkError(
                    f"PostgreSQL ended; its log {postgres.log} ends with:\n" + tail(postgres.log)
                )

    def stop(self) -> None:
        """End the processes gracefully, then PostgreSQL, each within its bound."""
        running = [child.process for child in self.children.values()]
        for process in running:
            process.terminate()
        if not wait_until(lambda: all(p.poll() is not None for p in running), timeout_s=DRAIN_S):
            for process in running:
                process.kill()
            for process in running:
                process.wait(5)
        self.children.clear()
        if self.proxies is not None:
            self.proxies.stop()
            self.proxies = None
        for postgres in self.databases.values():
            postgres.stop()  # harmless when repeated
        self.databases.clear()
        self.postgres = None
        if self._claim is not None:
            self._claim.close()
        if self._status:
            write_state(self.home, {"status": "stopped", "base_port": self.plan.base_port})

    def _make_certificates(self) -> None:
        self._progress("checking the certificates")
        root, now = self.home / "tls", instant(SystemClock())
        ensure_authorities(root, [site.code for site in self.plan.sites], now=now)
        for site in self.plan.sites:
            ensure_site(root, site.code, site.roles, now=now)
            for name in (OPERATOR, REVIEWER):
                issue_client(root, site.code, "operator", name, now=now)

    def _start_database(self, signals: StopSignals) -> None:
        codes = [site.code for site in self.plan.sites]
        passwords = ensure_passwords(self.home, codes)

        def postgres(name: str, folder: Path, port: int) -> Postgres:
            log = self.home / "logs" / f"{name}.log"
            return Postgres(data=folder, log=log, port=port, password=passwords.postgres)

        self._progress("starting PostgreSQL")
        home = self.home / "postgres"
        if own := self.plan.own_postgres_ports:
            databases = {c: postgres(f"postgres-{c}", home / c, own[c]) for c in codes}
        else:
            self.postgres = postgres("postgres", home, self.plan.postgres_port)
            databases = dict.fromkeys(codes, self.postgres)
        for code, database in databases.items():
            with signals.held():
                self.databases[code] = database
                database.start()
                self._record("starting")
        write_site_files(
            self.plan,
            database_host={code: str(one.socket_directory) for code, one in databases.items()},
            passwords=passwords,
        )

    def _rotate_logs(self) -> None:
        """Keep the logs of this run and of the one before it."""
        logs, previous = self.home / "logs", self.home / "logs.previous"
        if logs.exists():
            shutil.rmtree(previous, ignore_errors=True)
            logs.rename(previous)
        logs.mkdir(mode=0o700)

    def _record(self, status: str) -> None:
        self._status = status
        postgres = None
        if self.postgres is not None and self.postgres.pid is not None:
            postgres = {
                **_process_entry(self.postgres.pid),
                "port": self.plan.postgres_port,
                "socket_directory": str(self.postgres.socket_directory),
            }
        processes = [
            {
                **_process_entry(child.process.pid),
                "name": name,
                "site": child.plan.site,
                "roles": list(child.plan.roles),
                "internal": child.plan.internal,
                "edge": child.plan.edge,
                "site_file": str(self.plan.site_file(child.plan.site)),
                "log": str(child.log),
            }
            for name, child in self.children.items()
        ]
        write_state(
            self.home,
            {
                "status": status,
                "base_port": self.plan.base_port,
                "supervisor": _process_entry(os.getpid()),
                "postgres": postgres,
                "processes": processes,
            },
        )

    def announce(self) -> None:
        """Tell where everything is reached."""
        names = {site.code: site.name for site in self.plan.sites}
        self._progress(f"PostgreSQL 127.0.0.1:{self.plan.postgres_port}")
        for process in self.plan.processes:
            edge = f"edge {process.edge}  " if process.edge else ""
            self._progress(
                f"{process.site} {names[process.site]}  {edge}internal {process.internal}"
                f"  ({', '.join(process.roles)})"
            )


def up(
    home: Path,
    *,
    prepare: Prepare,
    base_port: int | None = None,
    fresh: bool = False,
    detach: bool = False,
    split: Sequence[str] = (),
    replicas: Mapping[str, int] | None = None,
    on_progress: Progress = print,
    sites: Sequence[LocalSite] | None = None,
    command: Sequence[str] = SERVE,
    on_healthy: OnHealthy | None = None,
) -> None:
    """Start the network of `home` and serve until a signal; with `detach` until it is healthy.

    Raise `LocalNetworkError` when it cannot be started or one of its processes ends, and
    `KeyboardInterrupt` when a signal ends it before it is healthy. With `detach`, `prepare`
    and `on_healthy` must be functions of importable modules.
    """
    options = Options(
        home=home.absolute(),
        prepare=prepare,
        base_port=base_port,
        fresh=fresh,
        split=tuple(split),
        replicas=dict(replicas or {}),
        sites=tuple(sites or SITES),
        command=tuple(command),
        on_healthy=on_healthy,
    )
    if detach:
        from infra.local.detached import start_detached

        start_detached(options, on_progress)
    else:
        run(options, on_progress)


def run(
    options: Options, on_progress: Progress, on_ready: Callable[[], None] | None = None
) -> None:
    """Serve in this process until a signal comes or a process of the network ends."""
    with StopSignals() as signals, locked(options.home):
        saved = _clean(options.home).get("base_port")
        base_port = choose_base_port(options.home, explicit=options.base_port, saved=saved)
        network = Network(_plan(options, base_port), options, on_progress)
        network.start(signals)
        try:
            network.announce()
            if on_ready is not None:
                on_ready()
            while True:
                network.check()
                time.sleep(0.2)
        except StopRequested:
            on_progress("stopping")
        finally:
            signals.ignore()
            network.stop()


def down(home: Path) -> bool:
    """Stop the network of `home`, or what a killed one left; False when nothing ran."""
    if not (home / "state.json").exists():
        return False
    supervisor = identity(read_state(home).get("supervisor"))
    if supervisor is not None:
        stop_processes([supervisor], grace_s=DOWN_S)
    with locked(home, timeout_s=5):
        left = _clean(home)
    return supervisor is not None or left["status"] != "stopped"


def status(home: Path) -> dict[str, Any]:
    """The last state with `alive` at each process; `status` is `killed` without a supervisor."""
    state = read_state(home) or {"status": "stopped"}
    entries = [state.get("supervisor"), state.get("postgres"), *state.get("processes", [])]
    for entry in entries:
        if entry:
            entry["alive"] = identity(entry) is not None
    if state["status"] != "stopped" and not state["supervisor"]["alive"]:
        state["status"] = "killed"
    return state


@contextlib.contextmanager
def temporary_network(
    *,
    prepare: Prepare,
    split: Sequence[str] = (),
    split_sites: Sequence[str] | None = None,
    replicas: Mapping[str, int] | None = None,
    sites: Sequence[LocalSite] | None = None,
    folder: Path | None = None,
    on_progress: Progress = lambda _: None,
    command: Sequence[str] = SERVE,
    on_healthy: OnHealthy | None = None,
    postgres_per_site: bool = False,
    proxied: bool = False,
    failpoints: bool = False,
) -> Iterator[Network]:
    """A network of its own in a new folder (in `folder` if given), deleted afterwards.

    To be used from the main thread. Its site files, certificates and addresses are in
    `network.plan`. For tests that break things: `postgres_per_site` gives each site a server
    that can be killed alone (`network.databases`), `proxied` puts a proxy on each way between
    two sites (`network.proxies`), `failpoints` lets faults be armed (`plan.failpoints_folder`).
    """
    home = Path(tempfile.mkdtemp(prefix="yidi-", dir=folder))
    # PostgreSQL may have to run as another user, who must be able to pass through.
    home.chmod(0o711)
    options = Options(
        home=home,
        prepare=prepare,
        split=tuple(split),
        split_sites=split_sites,
        replicas=dict(replicas or {}),
        sites=tuple(sites or SITES),
        command=tuple(command),
        on_healthy=on_healthy,
        postgres_per_site=postgres_per_site,
        proxied=proxied,
        failpoints=failpoints,
    )
    try:
        with locked(home):
            network = _start_on_free_ports(options, on_progress)
            try:
                yield network
            finally:
                with StopSignals() as signals:
                    signals.ignore()
                    network.stop()
    finally:
        shutil.rmtree(home)


def _start_on_free_ports(options: Options, on_progress: Progress) -> Network:
    """Several tests may look for a block at once: the claim decides, the others try again."""
    for attempt in range(19):
        try:
            return _start_on(candidate_base_port(f"{options.home}/{attempt}"), options, on_progress)
        except PortInUseError:
            continue
    return _start_on(candidate_base_port(str(options.home)), options, on_progress)


def _start_on(base_port: int, options: Options, on_progress: Progress) -> Network:
    network = Network(_plan(options, base_port), options, on_progress)
    with StopSignals() as signals:
        network.start(signals)
    return network


def _plan(options: Options, base_port: int) -> NetworkPlan:
    return plan_network(
        options.home,
        base_port,
        sites=options.sites,
        split=options.split,
        split_sites=options.split_sites,
        replicas=options.replicas,
        postgres_per_site=options.postgres_per_site,
        proxied=options.proxied,
        failpoints=options.failpoints,
    )


def _clean(home: Path) -> dict[str, Any]:
    """End what a killed supervisor left; return the state that it left. Needs the lock."""
    state = read_state(home) or {"status": "stopped"}
    left = [process for entry in state.get("processes", []) if (process := identity(entry))]
    stop_processes(left, grace_s=DRAIN_S)
    stop_left_over(home / "postgres")
    if state["status"] != "stopped":
        write_state(home, {"status": "stopped", "base_port": state["base_port"]})
    return state


def _process_entry(pid: int) -> dict[str, Any]:
    found = Identity.of(pid)
    return {"pid": pid, "started": found.started if found else ""}
