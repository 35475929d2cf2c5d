"""People who are insured, and the accounts that may pay for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from infra.cli.client import Clients
from infra.runtime.clock import Clock, new_id
from infra.runtime.links import RemoteChannel, stub
from infra.runtime.tls import SiteCertificates
from loadtests.people import register
from yidi.common.v1 import types_pb2, visit_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc

_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Person:
    """A retired employee as the insured site knows one."""

    site: str
    area: str
    credential: visit_pb2.Credential
    person_id: str
    account_id: str


async def make_insured(
    clients: Clients, clock: Clock, *, number: int, site: str, area: str, care_place: str, day: date
) -> Sequence[Person]:
    """Register `number` people of `area`, filed for `care_place` since a month before `day`."""
    credentials = await register(
        clients,
        clock,
        number=number,
        site=site,
        area=area,
        care_place=care_place,
        filed_on=day - timedelta(days=30),
        seed=int(area),
    )
    at = clients.sites[site]
    # Only a role of the own site may ask who somebody is.
    channel = RemoteChannel.open(
        at.internal["enrollment"],
        SiteCertificates(at.tls).client("settlement"),
        site=site,
        message_bytes=at.settings.limits.message_bytes,
    )
    asked = {new_id(clock): credential for credential in credentials}  # answers come in any order
    try:
        answer = await stub(enrollment_pb2_grpc.EnrollmentServiceStub, channel).BatchIdentify(
            enrollment_pb2.BatchIdentifyRequest(
                items=[
                    enrollment_pb2.IdentifyItem(
                        id=key,
                        credential=credential,
                        insured_area=area,
                        insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
                        day=day.isoformat(),
                    )
                    for key, credential in asked.items()
                ]
            ),
            timeout=_SECONDS,
        )
    finally:
        await channel.close()
    return [
        Person(
            site,
            area,
            asked[result.id],
            result.participant.person_id,
            result.participant.account_id,
        )
        for result in answer.results
    ]
