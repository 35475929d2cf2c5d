"""The nation and provinces as they are in production, run inside the test's own process.

Real services behind real interceptors, real mTLS between the sites, each site with its own database
on the session's PostgreSQL. The clock is the test's, and a site may be played by something else.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
from google.rpc import status_pb2
from ports import free_port

from infra.cli.roles import builders, schemas
from infra.local.certificates import ensure_authorities, ensure_site, issue_client
from infra.local.network import SITES
from infra.local.people import SyntheticPerson, make_people
from infra.local.postgres import HOST, SUPERUSER
from infra.runtime.clock import Clock, business_day, new_id
from infra.runtime.config import NATION, ROLES, Settings
from infra.runtime.database import Database
from infra.runtime.errors import Refusal
from infra.runtime.links import RemoteChannel, stub
from infra.runtime.migrate import migrate
from infra.runtime.server import Builder, running
from infra.runtime.tls import SiteCertificates
from services.catalog import load as catalog_load
from services.policy import loader as policy_loader
from yidi.common.v1 import amounts_pb2, envelope_pb2, types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import filing_pb2, filing_pb2_grpc
from yidi.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import payload_pb2

BEIJING, GUANGDONG = "110000", "440000"
ZHANJIANG, GUANGZHOU = "440800", "440100"
HOSPITALS = {
    BEIJING: "H11010100001",
    GUANGZHOU: "H44010000001",
    ZHANJIANG: "H44080000001",
}
"""Pooling area → a sample hospital of the third level in it."""
OPERATOR = "clerk"
REFERRED: dict[str, Any] = {
    "kind": types_pb2.FILING_KIND_REFERRAL,
    "channel": types_pb2.FILING_CHANNEL_HOSPITAL_UPLOAD,
    "referral_institution": "H44080300001",
}
"""How a resident of one place is filed to another at the same level: by an institution that 湛江
names."""
_SERVICES = Path(policy_loader.__file__).parent.parent
_PATIENCE = {"settle_ms": 30_000, "local_call_ms": 30_000}
"""A machine that stands still for seconds leaves no settlement behind whose outcome is unknown."""
S = TypeVar("S")
_random = random.Random(20_261_121)
PEOPLE = make_people(
    _random,
    counties=("440802", "440803", "440811"),
    born_from=date(1940, 1, 1),
    born_until=date(1960, 12, 31),
)
"""Synthetic people; none comes twice in one session."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A registered person: retired, insured as an employee."""

    person: SyntheticPerson
    person_id: str
    area: str = ZHANJIANG

    @property
    def credential(self) -> visit_pb2.Credential:
        """The e-credential."""
        return visit_pb2.Credential(
            type=types_pb2.CREDENTIAL_TYPE_ELECTRONIC, number=self.person.electronic_token
        )


def settle_request(
    patient: Patient,
    *,
    day: date,
    care_area: str = BEIJING,
    days: int = 5,
    units: int = 1,
    **visit: Any,
) -> gateway_pb2.SettleRequest:
    """A stay of `days` days that ends on `day`; `units` multiplies the cost of its one stent."""
    request = gateway_pb2.SettleRequest(
        request_id=f"req-{uuid4()}", credential=patient.credential, operator="收费员示例"
    )
    bill = request.bill
    bill.reference.institution = HOSPITALS[care_area]
    bill.reference.visit_id = f"V{uuid4().hex[:12]}"
    bill.reference.bill_id = "B1"
    facts: dict[str, Any] = {
        "care_area": care_area,
        "insured_area": patient.area,
        "insurance": types_pb2.INSURANCE_TYPE_EMPLOYEE,
        "care_type": types_pb2.CARE_TYPE_INPATIENT,
        "start_date": (day - timedelta(days=days)).isoformat(),
        "end_date": day.isoformat(),
        "inpatient_type": types_pb2.INPATIENT_TYPE_ORDINARY,
        "injury": types_pb2.ANSWER_NO,
    }
    bill.visit.CopyFrom(visit_pb2.Visit(**(facts | visit)))
    priced = (("X007", 60, 5), ("X036", 4200, 1), ("C001", 1200, 2 * units), ("Y012", 3, 28))
    for number, (code, yuan, quantity) in enumerate(priced, 1):
        bill.lines.add(
            line_id=str(number),
            item_code=code,
            unit_price_micro_yuan=yuan * 10**6,
            quantity_e4=quantity * 10_000,
            amount_fen=yuan * quantity * 100,
        )
    bill.total_fen = sum(line.amount_fen for line in bill.lines)
    return request


def envelope(
    patient: Patient,
    clock: Clock,
    *,
    care_area: str = BEIJING,
    kind: types_pb2.ExchangeKind.ValueType = types_pb2.EXCHANGE_KIND_SETTLE,
    in_scope_fen: int = 500_000,
    change: Callable[[payload_pb2.ExchangePayload], None] | None = None,
    **visit: Any,
) -> envelope_pb2.Envelope:
    """What the insured place gets for a stay of five days; `change` alters the payload."""
    request = settle_request(
        patient, day=business_day(clock.now_ms()), care_area=care_area, **visit
    )
    hospital = HOSPITALS[care_area]
    level = types_pb2.INSTITUTION_LEVEL_THREE
    payload = payload_pb2.ExchangePayload(
        credential=patient.credential,
        bill=request.bill.reference,
        visit=request.bill.visit,
        institution=visit_pb2.Institution(
            code=hospital,
            area=care_area,
            grade=types_pb2.INSTITUTION_GRADE_THREE_A,
            deductible_level=level,
            price_limit_level=level,
            settlement_level=level,
        ),
        total_fen=in_scope_fen,
        parts=amounts_pb2.FeeParts(in_scope_fen=in_scope_fen),
        body_digest=bytes(32),
    )
    if change is not None:
        change(payload)
    content = payload.SerializeToString()
    return envelope_pb2.Envelope(
        id=new_id(clock),
        kind=kind,
        origin=envelope_pb2.Origin(care_area=care_area, institution=hospital),
        insured_area=patient.area,
        contract_revision=1,
        remaining_ms=10_000,
        payload_digest=hashlib.sha256(content).digest(),
        payload=content,
    )


def reason(status: status_pb2.Status) -> str:
    """The catalogue's name of a status."""
    return Refusal.from_status(status).name


@dataclass(slots=True)
class World:
    """Running sites and the people who call them."""

    clock: Clock
    pki: Path
    settings: dict[str, Settings]
    _channels: dict[tuple[str, ...], RemoteChannel] = field(default_factory=dict)
    _admins: dict[str, asyncpg.Connection] = field(default_factory=dict)

    @property
    def today(self) -> date:
        """The business day of the clock."""
        return business_day(self.clock.now_ms())

    def institution(self, area: str, code: str = "") -> gateway_pb2_grpc.InstitutionServiceStub:
        """The front door of a pooling area's site for a hospital, else the sample one."""
        return self.door(gateway_pb2_grpc.InstitutionServiceStub, area, code)

    def door(self, kind: Callable[[Any], S], area: str, code: str = "") -> S:
        """Any service of the same front door."""
        site = next(name for name, s in self.settings.items() if _has(s, area))
        code = code or HOSPITALS[area]
        issue_client(self.pki, site, "institution", code, now=datetime.now(UTC))
        channel = self.channel(site, f"institution/{code}", edge=True)
        return stub(kind, channel)

    def role(self, kind: Callable[[Any], S], site: str, role: str) -> S:
        """A stub of a service of `site` for another role of the same site."""
        return stub(kind, self.channel(site, role))

    def operator(self, kind: Callable[[Any], S], site: str) -> S:
        """A stub of a service of `site` for its operator."""
        return stub(kind, self.channel(site, f"operator/{OPERATOR}"))

    def relay(self, kind: Callable[[Any], S], site: str, *, caller: str) -> S:
        """A stub at the edge of `site` for the relay of another site."""
        return stub(kind, self.channel(site, "edge", edge=True, caller=caller))

    def channel(
        self, site: str, pair: str, *, edge: bool = False, caller: str = ""
    ) -> RemoteChannel:
        """A channel to a door of `site` with the key pair `pair` of `caller`, else of `site`."""
        key = (site, pair, str(edge), caller)
        if key not in self._channels:
            listen = self.settings[site].listen
            address = listen.edge if edge else listen.internal
            assert address is not None
            certificates = SiteCertificates(self.pki / (caller or site))
            self._channels[key] = RemoteChannel.open(
                [address], certificates.client(pair), site=site, message_bytes=4 << 20
            )
        return self._channels[key]

    async def admin(self, site: str) -> asyncpg.Connection:
        """The superuser's connection to the database of a site."""
        if site not in self._admins:
            at = self.settings[site].database
            self._admins[site] = await asyncpg.connect(
                host=HOST,
                port=at.port,
                user=SUPERUSER,
                password=at.admin_password.get_secret_value(),
                database=at.name,
            )
        return self._admins[site]

    async def patients(
        self,
        number: int,
        *,
        places: Sequence[str] = (BEIJING, GUANGZHOU),
        **registration: Any,
    ) -> list[Patient]:
        """Register people of 湛江, long-term residents of the first place, referred to others."""
        people = [next(PEOPLE) for _ in range(number)]
        enrollment = self.operator(enrollment_pb2_grpc.EnrollmentServiceStub, GUANGDONG)
        facts: dict[str, Any] = {
            "insured_area": ZHANJIANG,
            "insurance": types_pb2.INSURANCE_TYPE_EMPLOYEE,
            "person_class": types_pb2.PERSON_CLASS_RETIRED,
            "active_from": "2020-01-01",
        }
        items = [
            enrollment_pb2.RegisterItem(
                id=new_id(self.clock),
                name=person.name,
                id_number=person.id_number,
                social_security_card=person.social_security_card,
                electronic_token=person.electronic_token,
                **(facts | registration),
            )
            for person in people
        ]
        answer = await enrollment.BatchRegister(
            enrollment_pb2.BatchRegisterRequest(items=items), timeout=30
        )
        ids = {result.id: result.person_id for result in answer.results}
        patients = [
            Patient(person, ids[item.id]) for person, item in zip(people, items, strict=True)
        ]
        for number, place in enumerate(places):
            await self.file(patients, place, **(REFERRED if number else {}))
        return patients

    async def file(self, patients: Sequence[Patient], place: str, **filing: Any) -> None:
        """File people as long-term residents of `place`."""
        start = (self.today - timedelta(days=60)).isoformat()
        facts: dict[str, Any] = {
            "insured_area": ZHANJIANG,
            "insurance": types_pb2.INSURANCE_TYPE_EMPLOYEE,
            "kind": types_pb2.FILING_KIND_RETIRED_RESETTLED,
            "channel": types_pb2.FILING_CHANNEL_NATIONAL_APP,
            "care_place": place,
            "start_date": start,
            "filed_on": start,
            "commitment": types_pb2.COMMITMENT_STATE_MATERIAL_COMPLETE,
        }
        filings = self.operator(filing_pb2_grpc.FilingServiceStub, GUANGDONG)
        items = [
            filing_pb2.CreateFilingItem(
                id=new_id(self.clock), credential=patient.credential, **(facts | filing)
            )
            for patient in patients
        ]
        answer = await filings.BatchCreateFilings(
            filing_pb2.BatchCreateFilingsRequest(items=items), timeout=30
        )
        for result in answer.results:
            if result.HasField("error"):
                raise Refusal.from_status(result.error)

    def request(self, patient: Patient, **facts: Any) -> gateway_pb2.SettleRequest:
        """A stay that ends today."""
        return settle_request(patient, **({"day": self.today} | facts))

    async def settle(self, request: gateway_pb2.SettleRequest) -> gateway_pb2.SettleResponse:
        """Settle as the hospital of the bill."""
        bill = request.bill
        door = self.institution(bill.visit.care_area, bill.reference.institution)
        return await door.Settle(request, timeout=30)

    async def close(self) -> None:
        """Close every connection."""
        for channel in self._channels.values():
            await channel.close()
        for admin in self._admins.values():
            await admin.close()


def make_pki(root: Path) -> Path:
    """Certificates of the sample sites, hospitals and operators."""
    now = datetime.now(UTC)
    sites = [site.code for site in SITES]
    ensure_authorities(root, sites, now=now)
    for site in SITES:
        ensure_site(root, site.code, site.roles, now=now)
        issue_client(root, site.code, "operator", OPERATOR, now=now)
        for area in site.areas:
            if area.code in HOSPITALS:
                issue_client(root, site.code, "institution", HOSPITALS[area.code], now=now)
    return root


@asynccontextmanager
async def world(
    *,
    database_settings: Callable[..., Settings],
    pki: Path,
    clock: Clock,
    sites: Iterable[str] = (BEIJING, GUANGDONG),
    replaced: Mapping[str, Mapping[str, Sequence[Builder]]] | None = None,
    limits: Mapping[str, int | bool] | None = None,
) -> AsyncIterator[World]:
    """The nation and `sites`, running. `replaced`: site → role → what plays it instead."""
    listed = {site.code: site for site in SITES}
    codes = [NATION, *sites]
    edges = {code: f"{HOST}:{free_port()}" for code in codes}
    internals = {code: f"{HOST}:{free_port()}" for code in codes}
    areas = {code: [area.model_dump(mode="json") for area in listed[code].areas] for code in codes}
    settings = {}
    for code in codes:
        nation = code == NATION
        settings[code] = Settings.model_validate(
            database_settings(code).model_dump()
            | {
                "site": {"code": code, "name": listed[code].name, "areas": areas[code]},
                "listen": {"edge": edges[code], "internal": internals[code]},
                "roles": {} if nation else {role: [internals[code]] for role in ROLES},
                "nation": None if nation else {"edge": edges[NATION]},
                "neighbours": [
                    {"code": c, "name": listed[c].name, "edge": edges[c], "areas": areas[c]}
                    for c in (codes[1:] if nation else ())
                ],
                "tls": {"directory": pki / code},
                "enrollment_key": "5a" * 32,
                "allow_illustrative": True,
                "limits": _PATIENCE | {"directory_poll_ms": 100} | dict(limits or {}),
            }
        )
    async with AsyncExitStack() as stack:
        for code, own in settings.items():
            await _prepare(own, clock)
            roles = builders(own, listed[code].roles) | dict((replaced or {}).get(code, {}))
            await stack.enter_async_context(running(own, roles, clock=clock))
        made = World(clock, pki, settings)
        stack.push_async_callback(made.close)
        await _directories(made)
        yield made


async def _prepare(settings: Settings, clock: Clock) -> None:
    await migrate(settings, schemas(settings), clock)
    if settings.is_nation:
        return
    async with Database.open(settings, "catalog") as database:
        samples = _SERVICES / "catalog" / "samples" / settings.site.code
        await catalog_load.load_catalogue(database, samples, clock)
    async with Database.open(settings, "policy") as database:
        areas = [area.code for area in settings.site.areas]
        await policy_loader.load_documents(
            database, _SERVICES / "policy" / "documents", clock, areas=areas
        )


async def _directories(made: World) -> None:
    """Return when every province knows the areas of the others."""
    for code in made.settings:
        if code == NATION:
            continue
        relay = made.role(relay_pb2_grpc.RelayServiceStub, code, "gateway")
        async with asyncio.timeout(10):
            known = False
            while not known:
                answer = await relay.GetDirectory(relay_pb2.GetDirectoryRequest(), timeout=30)
                known = bool(answer.sites) or await asyncio.sleep(0.02, False)


def _has(settings: Settings, area: str) -> bool:
    return any(listed.code == area for listed in settings.site.areas)


async def outcomes(calls: Iterable[Any]) -> list[Any]:
    """The answer or `Refusal` of each call, all under way at once."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, Refusal):
            raise one
    return found
