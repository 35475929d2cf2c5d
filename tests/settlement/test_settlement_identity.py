"""A certificate entitles to its own name, an institution to its own code (PROTOCOL §5, §11)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from world import BEIJING, GUANGDONG, GUANGZHOU, HOSPITALS, OPERATOR, ZHANJIANG, World, envelope

from infra.runtime.config import NATION
from infra.runtime.errors import Refusal
from infra.runtime.links import stub
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from yidi.relay.v1 import relay_pb2, relay_pb2_grpc
from yidi.settlement.v1 import care_pb2, care_pb2_grpc, insured_pb2, insured_pb2_grpc


def _forge(pki: Path, authority: str, holder: str, file: str, spiffe_id: str, dns: str) -> str:
    """A pair in the folder of site `holder`, signed by the CA `authority`; its name there."""
    certificate = x509.load_pem_x509_certificate((pki / "ca" / f"{authority}.pem").read_bytes())
    signer = serialization.load_pem_private_key(
        (pki / "ca" / f"{authority}.key").read_bytes(), password=None
    )
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")]))
        .issuer_name(certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(spiffe_id), x509.DNSName(dns)]
            ),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    folder = pki / holder
    (folder / f"{file}.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (folder / f"{file}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


async def _exchange(
    sites: World, site: str, pair: str, caller: str, *, edge: bool = True
) -> relay_pb2.BatchExchangeResponse:
    [patient] = await sites.patients(1)
    channel = sites.channel(site, pair, edge=edge, caller=caller)
    relay = stub(relay_pb2_grpc.RelayServiceStub, channel)
    item = envelope(patient, sites.clock)
    return await relay.BatchExchange(relay_pb2.BatchExchangeRequest(items=[item]), timeout=30)


@pytest.mark.parametrize("named", [NATION, GUANGDONG])
async def test_a_leaf_of_a_sites_own_ca_cannot_name_another_sites_relay(
    sites: World, named: str
) -> None:
    """TLS lets it in (the edge trusts both CAs); which CA signed it decides."""
    pair = _forge(
        sites.pki,
        BEIJING,
        BEIJING,
        f"forged-{named}",
        f"spiffe://yidi/site/{named}/relay",
        "localhost",
    )
    with pytest.raises(Refusal) as caught:
        await _exchange(sites, BEIJING, pair, BEIJING)
    assert caught.value.name == "ACCESS_DENIED"


async def test_the_nations_ca_names_relays_only(sites: World) -> None:
    """Not an institution, not an operator, not another role."""
    for number, who in enumerate(
        (f"institution/{HOSPITALS[BEIJING]}", f"operator/{OPERATOR}", "settlement")
    ):
        pair = _forge(
            sites.pki,
            "nation",
            BEIJING,
            f"overreach-{number}",
            f"spiffe://yidi/site/{BEIJING}/{who}",
            "localhost",
        )
        channel = sites.channel(BEIJING, pair, edge=True)
        door = stub(gateway_pb2_grpc.InstitutionServiceStub, channel)
        with pytest.raises(Refusal) as caught:
            await door.GetSettlement(
                gateway_pb2.GetSettlementRequest(request_id="req-00000001"), timeout=30
            )
        assert caught.value.name == "ACCESS_DENIED"


@pytest.mark.parametrize(("site", "edge"), [(NATION, True), (GUANGDONG, True), (GUANGDONG, False)])
async def test_a_certificate_of_another_ca_does_not_get_in(
    sites: World, site: str, edge: bool
) -> None:
    """A role of 北京, signed by 北京's CA, at the doors of others: no connection is made."""
    with pytest.raises(Refusal) as caught:
        await _exchange(sites, site, "gateway", BEIJING, edge=edge)
    assert (caught.value.name, caught.value.details["cause"]) == (
        "SERVICE_UNAVAILABLE",
        "unavailable",
    )


async def test_a_site_presenting_another_sites_code_is_refused(sites: World) -> None:
    """北京's relay sends for 湛江's hospital."""
    [patient] = await sites.patients(1)
    nation = sites.relay(relay_pb2_grpc.RelayServiceStub, NATION, caller=BEIJING)
    for care_area in (ZHANJIANG, GUANGDONG, "370800", NATION):
        item = envelope(patient, sites.clock)
        item.origin.care_area = care_area
        [result] = (
            await nation.BatchExchange(relay_pb2.BatchExchangeRequest(items=[item]), timeout=30)
        ).results
        refusal = Refusal.from_status(result.error)
        assert (refusal.name, refusal.details["field"]) == ("FOREIGN_CODE", "origin.care_area")
        assert result.not_forwarded


async def test_provinces_meet_through_the_nation_only(sites: World) -> None:
    with pytest.raises(Refusal) as caught:
        await _exchange(sites, GUANGDONG, "edge", BEIJING)
    assert caught.value.name == "ACCESS_DENIED"


async def test_the_insured_site_takes_its_own_areas_only(sites: World) -> None:
    [patient] = await sites.patients(1)
    relay = sites.relay(relay_pb2_grpc.RelayServiceStub, GUANGDONG, caller=NATION)
    item = envelope(patient, sites.clock)
    item.insured_area = BEIJING
    [result] = (
        await relay.BatchExchange(relay_pb2.BatchExchangeRequest(items=[item]), timeout=30)
    ).results
    assert Refusal.from_status(result.error).name == "FOREIGN_CODE"


async def test_an_operator_settles_nothing(sites: World) -> None:
    [patient] = await sites.patients(1)
    request = sites.request(patient, care_area=GUANGZHOU)
    door = stub(
        gateway_pb2_grpc.InstitutionServiceStub,
        sites.channel(GUANGDONG, f"operator/{OPERATOR}", edge=True),
    )
    for call in (
        door.Settle(request, timeout=30),
        door.Quote(
            gateway_pb2.QuoteRequest(credential=request.credential, bill=request.bill), timeout=30
        ),
    ):
        with pytest.raises(Refusal) as caught:
            await call
        assert caught.value.name == "ACCESS_DENIED"


async def test_an_institution_reaches_nothing_behind_the_front_door(sites: World) -> None:
    channel = sites.channel(GUANGDONG, f"institution/{HOSPITALS[GUANGZHOU]}")
    for call in (
        stub(enrollment_pb2_grpc.EnrollmentServiceStub, channel).BatchIdentify(
            enrollment_pb2.BatchIdentifyRequest(), timeout=30
        ),
        stub(care_pb2_grpc.CareServiceStub, channel).BatchGet(
            care_pb2.BatchGetRequest(), timeout=30
        ),
        stub(insured_pb2_grpc.InsuredServiceStub, channel).BatchExchange(
            insured_pb2.BatchExchangeRequest(), timeout=30
        ),
    ):
        with pytest.raises(Refusal) as caught:
            await call
        assert caught.value.name == "ACCESS_DENIED"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bill.reference.institution", HOSPITALS[ZHANJIANG]),
        ("bill.visit.care_area", BEIJING),
        ("bill.visit.care_area", ZHANJIANG),
    ],
)
async def test_an_institution_speaks_for_itself_only(sites: World, field: str, value: str) -> None:
    """Another hospital's code; an area of another site; another area of the same site."""
    [patient] = await sites.patients(1)
    request = sites.request(patient, care_area=GUANGZHOU)
    target = request.bill.reference if "institution" in field else request.bill.visit
    setattr(target, field.rpartition(".")[2], value)
    with pytest.raises(Refusal) as caught:
        await sites.institution(GUANGZHOU).Settle(request, timeout=30)
    assert caught.value.name == "FOREIGN_CODE"
    assert field.endswith(caught.value.details["field"])
    assert caught.value.details["value"] == value
    left = await (await sites.admin(GUANGDONG)).fetchval(
        "SELECT count(*) FROM settlement.request_key WHERE request_id = $1", request.request_id
    )
    assert left == 0
