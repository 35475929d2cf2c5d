"""Breaks and heals a local network as a plan says; from the main thread, which owns its processes.

Whatever broke, `heal` leaves every process and server running and every way open.
"""

from __future__ import annotations

import signal
from collections import Counter
from threading import Event

from infra.local.network import NetworkPlan
from infra.local.processes import LocalNetworkError
from infra.local.supervisor import Network
from infra.runtime.clock import monotonic_us
from infra.runtime.failpoints import Place, arm, disarm
from loadtests.faults.plan import Parts, Step

_STALE_US = 200_000
"""A process may act on a disarmed failpoint until it looks again, 50 ms later at most."""
_ATTEMPTS = 3


def parts_of(plan: NetworkPlan) -> Parts:
    """What of a network can break."""
    return Parts(
        processes=tuple(process.name for process in plan.processes),
        links=tuple(link.name for link in plan.links),
        databases=tuple(site.code for site in plan.sites),
        sites=tuple(site.code for site in plan.sites),
    )


class Injuries:
    """Breaks one network; counts what it did."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._frozen: set[str] = set()
        self._armed: dict[str, Place] = {}
        """Name of a fault's file → its place."""
        self.kills: Counter[str] = Counter()
        """What was killed, by process name or `postgres-SITE`, by us or by a failpoint."""
        self.faults = 0
        """Faults done, kills among them; a failpoint counts when it acts."""
        self.acted: Counter[Place] = Counter()
        """How often each failpoint has acted."""

    @property
    def armed(self) -> set[Place]:
        """The failpoints armed so far."""
        return set(self._armed.values())

    def during(self, steps: tuple[Step, ...], *, seconds: float) -> None:
        """Do the steps at their times; return when `seconds` are over."""
        begun = monotonic_us()
        for step in steps:
            _wait_until(begun + step.at_ms * 1000)
            self._do(step)
        _wait_until(begun + int(seconds * 1e6))

    def heal(self) -> None:
        """Mend everything; return when every process serves."""
        network = self._network
        if network.proxies is not None:
            network.proxies.heal()
        folder = network.plan.failpoints_folder
        # Counted before they go; one that acts between is counted among the faults alone.
        self.acted.update(self._armed[token.name[:4]] for token in folder.glob("*.fired.*"))
        self.faults += disarm(folder)
        _wait_until(monotonic_us() + _STALE_US)
        self.faults += disarm(folder)
        for name in self._frozen:
            network.children[name].process.send_signal(signal.SIGCONT)
        self._frozen.clear()
        for database in network.databases.values():
            database.start()
        for _ in range(_ATTEMPTS):
            for name, child in list(network.children.items()):
                if child.process.poll() is not None:
                    self.kills[name] += 1
                    network.spawn(child.plan)
            try:
                network.wait_healthy()
            except LocalNetworkError as error:
                if all(child.process.poll() is None for child in network.children.values()):
                    raise  # it runs and does not serve; one that died late starts again
                failure = error
            else:
                return
        raise failure

    def _do(self, step: Step) -> None:
        network = self._network
        if step.kind == "failpoint":
            assert step.fault is not None
            name = f"{len(self._armed):04}"
            self._armed[name] = step.fault.place
            arm(network.plan.failpoints_folder, name, step.fault)
            return
        self.faults += 1
        if step.kind == "kill":
            process = network.children[step.target].process
            process.kill()
            process.wait(5)
        elif step.kind == "freeze":
            network.children[step.target].process.send_signal(signal.SIGSTOP)
            self._frozen.add(step.target)
        elif step.kind == "database":
            network.databases[step.target].kill()
            self.kills[f"postgres-{step.target}"] += 1
        elif step.kind == "link":
            assert network.proxies is not None
            network.proxies.set(step.target, step.mode, ms=step.ms)


def _wait_until(moment_us: int) -> None:
    Event().wait(max(moment_us - monotonic_us(), 0) / 1e6)
