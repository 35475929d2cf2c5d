"""`yidi bench policy`: cases computed a second, with the documents of many areas loaded.

Three parts, one after another: a process that computes (`loadtests.policy`); one that compares a
rule with other libraries (`loadtests.policy_yardsticks`); and gRPC batches from this process to the
policy role of a network of its own, a process over mTLS and PostgreSQL that computes as published.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from infra.cli.bench_measuring import Progress
from infra.cli.bench_settle import INSURED, run_loop
from infra.cli.client import Clients
from infra.cli.pairs import CALL_S
from infra.cli.roles import schemas
from infra.local.network import SITES, LocalSite
from infra.local.supervisor import Network, temporary_network
from infra.runtime.clock import SystemClock, instant, monotonic_us, new_id
from infra.runtime.config import NATION, Area, Settings
from infra.runtime.database import Database
from infra.runtime.migrate import migrate
from loadtests import policy, policy_yardsticks
from services.policy import messages
from services.policy.domain.canonical import canonical
from services.policy.domain.compiling import compile_document
from services.policy.loader import new_document
from services.policy.store import NewDocument, Store
from yidi.common.v1 import amounts_pb2
from yidi.policy.v1 import policy_pb2, policy_pb2_grpc

BATCH, CALLERS = 256, 2


@dataclass(frozen=True, slots=True)
class Report:
    """What the bench prints; rates are of a second of processor time, the gRPC one of a second."""

    evaluations_per_s: float
    """Mixed cases, going round all documents."""
    explained_per_s: float
    """The same with the sentence of every step."""
    grpc_batch_per_s: float
    """Cases answered, in batches of `BATCH`, `CALLERS` at a time."""
    documents: int
    rss_mib: float
    """Of the process that holds the documents and computes."""
    openfisca_single_per_s: float | None
    zen_single_per_s: float | None
    ratio_openfisca: float | None
    ratio_zen: float | None
    rule_single_per_s: float
    """The rule of the yardsticks, here."""
    one_document_per_s: float
    """The mixed cases, each where its document is the only one."""
    one_document_among_all_per_s: float
    """The same with all documents there: what their number costs."""
    grpc_rss_mib: float
    """Of the process of the policy role."""
    rounds: int
    seconds: float


def bench_policy(
    *, documents: int, seconds: float, rounds: int, on_progress: Progress = lambda _: None
) -> Report:
    """Measure with `documents`, medians of `rounds` of `seconds` each."""
    missing = [
        name for name in policy_yardsticks.PACKAGES if name not in policy_yardsticks.installed()
    ]
    if missing:
        on_progress(
            f"{' and '.join(missing)} cannot be imported, so their figures are null: install the"
            f" extra with `{sys.executable} -m pip install -e '.[bench]'`"
        )
    data = policy.varied(documents)
    contents = [canonical(each) for each in data]
    pace = [str(seconds), str(rounds)]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".jsonl") as file:
        file.write("\n".join(contents))
        file.flush()
        held = _measured("loadtests.policy", file.name, *pace)
    compared = _measured("loadtests.policy_yardsticks", *pace)
    over = _over_grpc(data, contents, seconds, rounds)
    return Report(**held, **compared, **over, rounds=rounds, seconds=seconds)


def _measured(module: str, *arguments: str) -> dict[str, Any]:
    """What a process of its own measures."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _over_grpc(
    data: Sequence[Mapping[str, Any]], contents: Sequence[str], seconds: float, rounds: int
) -> dict[str, Any]:
    compiled = [compile_document(each) for each in data]
    stored = [
        new_document(document, each, content)
        for document, each, content in zip(compiled, data, contents, strict=True)
    ]
    nation = next(site for site in SITES if site.code == NATION)
    areas = tuple(Area(code=each.area, name=each.title) for each in compiled)

    def prepare(settings: Settings) -> None:
        asyncio.run(_load(settings, stored))

    with temporary_network(
        prepare=prepare, sites=[nation, LocalSite(INSURED, "广东", areas)], split=["policy"]
    ) as network:
        requests = _requests(policy.mixed_cases(compiled))
        per_s = run_loop(_batches(network, requests, seconds, rounds))
        (child,) = (one for one in network.children.values() if one.plan.roles == ("policy",))
        rss = policy.rss_mib(child.process.pid)
    return {"grpc_batch_per_s": round(per_s, 1), "grpc_rss_mib": rss}


async def _load(settings: Settings, documents: Sequence[NewDocument]) -> None:
    clock = SystemClock()
    await migrate(settings, schemas(settings), clock)
    if settings.is_nation:
        return
    async with Database.open(settings, "policy") as database:
        now = instant(clock)
        await Store(database).load(documents, published_at=now, activated_at=now)


async def _batches(
    network: Network,
    requests: Sequence[policy_pb2.BatchCalculateRequest],
    seconds: float,
    rounds: int,
) -> float:
    """Cases answered a second; raise `RuntimeError` when one is refused."""
    async with Clients.connect(network.home) as clients:
        stub = clients.operator(policy_pb2_grpc.PolicyServiceStub, INSURED, "policy")

        async def call(
            request: policy_pb2.BatchCalculateRequest,
        ) -> policy_pb2.BatchCalculateResponse:
            answer: policy_pb2.BatchCalculateResponse = await stub.BatchCalculate(
                request, timeout=CALL_S
            )
            return answer

        for request in requests:
            _require_benefits(request, await call(request))
        return median([await _round(call, requests, seconds) for _ in range(rounds)])


async def _round(call: Any, requests: Sequence[Any], seconds: float) -> float:
    done, begun = 0, monotonic_us()
    until = begun + int(seconds * 1e6)

    async def caller(first: int) -> None:
        nonlocal done
        number = first
        while monotonic_us() < until:
            answer = await call(requests[number % len(requests)])
            done += len(answer.results)
            number += CALLERS

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return done / (monotonic_us() - begun) * 1e6


def _require_benefits(
    request: policy_pb2.BatchCalculateRequest, answer: policy_pb2.BatchCalculateResponse
) -> None:
    cases = [case for result in answer.results for case in result.cases]
    refused = [case.error.message for case in cases if case.HasField("error")]
    if refused or len(cases) != len(request.items):
        raise RuntimeError(
            f"{len(request.items)} cases were sent, {len(cases)} answered: {refused[:1]}"
        )


def _requests(drawn: Sequence[policy.Drawn]) -> list[policy_pb2.BatchCalculateRequest]:
    clock = SystemClock()
    items = [_item(each, clock) for each in drawn]
    return [
        policy_pb2.BatchCalculateRequest(items=items[first : first + BATCH])
        for first in range(0, len(items), BATCH)
    ]


def _item(drawn: policy.Drawn, clock: SystemClock) -> policy_pb2.CalculateItem:
    case = drawn.case
    facts = policy_pb2.Facts(
        route=_number(messages.ROUTES, case.route),
        basis=_number(messages.BASES, case.basis),
        benefit_class=_number(messages.CLASSES, case.benefit_class),
        care_type=_number(messages.CARE_TYPES, case.care_type),
        person_class=_number(messages.PERSONS, case.person_class),
        age=case.age,
        civil_servant=case.civil_servant,
        grade=_number(messages.GRADES, case.grade),
        deductible_level=_number(messages.LEVELS, case.deductible_level),
        settlement_level=_number(messages.LEVELS, case.settlement_level),
        start_date=case.start_date,
        end_date=case.end_date,
        business_day=case.business_day,
        disease_code=case.disease,
        use_account=case.use_account,
        care_area=case.care_area,
    )
    parts = amounts_pb2.FeeParts(
        full_self_pay_fen=case.full_self_pay_fen,
        over_limit_fen=case.over_limit_fen,
        first_self_pay_fen=case.first_self_pay_fen,
        in_scope_fen=case.in_scope_fen,
    )
    return policy_pb2.CalculateItem(
        id=new_id(clock),
        insured_area=drawn.area,
        insurance=messages.INSURANCE_VALUES[drawn.insurance],
        openings=[
            policy_pb2.Accumulator(period=period, **counters._asdict())
            for period, counters in drawn.counters.items()
        ],
        account_balance_fen=drawn.balance_fen,
        cases=[
            policy_pb2.ComputeCase(
                id=new_id(clock), facts=facts, total_fen=case.total_fen, parts=parts
            )
        ],
    )


def _number(spelt: Mapping[int, str], name: str) -> Any:
    """The value of an enum by its wire spelling."""
    return next(number for number, known in spelt.items() if known == name)
