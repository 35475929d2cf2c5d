"""Breaks and heals a local network as a plan says; from the main thread, which owns its processes.

Whatever broke, `heal` leaves every process and server running and every way open.
"""

from __future__ import annotations

import signal
from collections import Counter
from threading import Event

from infra.local.network import NetworkPlan
from infra.local.supervisor import Network
from infra.runtime.clock import monotonic_us
from infra.runtime.failpoints import arm, disarm
from loadtests.faults.plan import Parts, Step


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
        self._armed = 0
        self.kills: Counter[str] = Counter()
        """What was killed, by process name or `postgres-SITE`, by us or by a failpoint."""
        self.faults = 0
        """Faults done, kills among them; a failpoint counts when it acts."""

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
        self.faults += disarm(network.plan.failpoints_folder)
        for name in self._frozen:
            network.children[name].process.send_signal(signal.SIGCONT)
        self._frozen.clear()
        for database in network.databases.values():
            database.start()
        for name, child in list(network.children.items()):
            if child.process.poll() is not None:
                self.kills[name] += 1
                network.spawn(child.plan)
        network.wait_healthy()

    def _do(self, step: Step) -> None:
        network = self._network
        if step.kind == "failpoint":
            assert step.fault is not None
            self._armed += 1
            arm(network.plan.failpoints_folder, f"{self._armed:04}", step.fault)
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
