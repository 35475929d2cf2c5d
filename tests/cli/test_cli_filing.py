"""`yidi filing`: what is asked and shown, then a patient guided, filed and changed on a network."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import date
from pathlib import Path
from random import SystemRandom
from typing import Any
from uuid import uuid4

import pytest
import typer
from command import run_yidi

from infra.cli.client import Clients
from infra.cli.filing_agency import write_form
from infra.cli.filing_asking import tell_applicant, written
from infra.cli.filing_words import entitlement, filing_line, guidance, record
from infra.cli.options import one_of
from infra.local.people import COUNTIES, make_people
from infra.local.processes import LocalNetworkError
from infra.runtime.clock import SystemClock, business_day
from yidi.common.v1 import types_pb2
from yidi.enrollment.v1 import enrollment_pb2, enrollment_pb2_grpc
from yidi.filing.v1 import desk_pb2, filing_pb2

ID = "01a200c1-78cc-7b37-94c8-712f478fc03c"
NAMES = {"440800": "湛江市", "110000": "北京市"}


@pytest.mark.parametrize("text", ["resident", "390", "城乡居民基本医疗保险"])
def test_values_are_read_by_name_code_or_chinese(text: str) -> None:
    read = one_of(types_pb2.InsuranceType.DESCRIPTOR)
    assert read(text) == types_pb2.INSURANCE_TYPE_RESIDENT


@pytest.mark.parametrize("text", ["", "unspecified", "none"])
def test_other_values_are_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="employee, resident"):
        one_of(types_pb2.InsuranceType.DESCRIPTOR)(text)


def test_options_go_before_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "ask.json"
    ask = {
        "applicant": {"credential": {"type": 2, "number": "1234"}, "insuredArea": "440800"},
        "carePlace": "110000",
        "materials": ["MATERIAL_FILING_FORM"],
    }
    file.write_text(json.dumps(ask), encoding="utf-8")
    read = written(
        file,
        desk_pb2.Application(),
        care_place="370800",
        start_date=None,
        materials=[filing_pb2.MATERIAL_COMMITMENT],
    )
    tell_applicant(read.applicant, None, "王五", None, types_pb2.INSURANCE_TYPE_EMPLOYEE)
    assert (read.care_place, read.start_date) == ("370800", "")
    assert list(read.materials) == [filing_pb2.MATERIAL_COMMITMENT]
    assert read.applicant.insured_area == "440800"
    assert read.applicant.insurance == types_pb2.INSURANCE_TYPE_EMPLOYEE
    assert (read.applicant.credential.number, read.applicant.credential.name) == ("1234", "王五")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot read"),
        (b"\xff", "not UTF-8"),
        (b'{"place": 1}', "not Application in proto JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    file = tmp_path / "ask.json"
    if content is not None:
        file.write_bytes(content)
    ran = run_yidi(tmp_path, "filing", "apply", "--file", str(file))
    assert ran.returncode == 2
    assert told in ran.stderr


@pytest.mark.parametrize("text", ["4408021955", "passport:4408021955", "id_card4408021955"])
def test_a_broken_credential_is_never_repeated(text: str) -> None:
    with pytest.raises(LocalNetworkError) as told:
        tell_applicant(desk_pb2.Applicant(), text, None, None, None)
    assert "electronic:TOKEN" in str(told.value)
    assert "4408021955" not in str(told.value)


@pytest.mark.parametrize("command", ["review", "queue", "form"])
def test_an_institution_does_not_do_the_agency_s_work(tmp_path: Path, command: str) -> None:
    told = {"review": (ID, "--version", "1", "--accept"), "queue": (), "form": (ID,)}
    as_institution = ("--area", "440800", "--as", "institution/H11010100001")
    ran = run_yidi(tmp_path, "filing", command, *told[command], *as_institution)
    assert ran.returncode == 2
    assert "only an operator of the insured site" in ran.stderr


@pytest.mark.parametrize("who", ["H11010100001", "relay/110000", "operator/"])
def test_who_asks_is_an_institution_or_an_operator(tmp_path: Path, who: str) -> None:
    ran = run_yidi(tmp_path, "filing", "check", "--as", who)
    assert ran.returncode == 2
    assert "write institution/CODE or operator/NAME" in ran.stderr


def a_filing(**fields: Any) -> filing_pb2.Filing:
    made: dict[str, Any] = {
        "filing_id": ID,
        "kind": types_pb2.FILING_KIND_REFERRAL,
        "care_place": "110000",
        "insured_area": "440800",
        "start_date": "2026-11-01",
        "state": filing_pb2.FILING_STATE_ACCEPTED,
        "version": 2,
    }
    return filing_pb2.Filing(**made | fields)


def test_a_filing_is_one_line() -> None:
    words = filing_line(a_filing(), NAMES).plain
    assert words == (f"已备案  异地转诊人员  湛江市 → 北京市  2026-11-01 起长期有效  第 2 版 {ID}")
    more = filing_line(
        a_filing(
            state=filing_pb2.FILING_STATE_PENDING,
            care_place="999999",
            end_date="2027-05-01",
            commitment=types_pb2.COMMITMENT_STATE_PROMISED,
            referral_institution="H44080200001",
            disease_code="C34",
            due_date="2026-11-24",
        ),
        NAMES,
    ).plain
    assert more.startswith("审核中")
    for part in ("湛江市 → 999999", "至 2027-05-01", "承诺待补", "转出机构 H44080200001"):
        assert part in more
    assert "病种 C34  应于 2026-11-24 前办结" in more
    assert "\n" not in more


def test_the_history_stands_below_a_filing() -> None:
    one = desk_pb2.FilingRecord(filing=a_filing())
    one.history.add(
        version=1,
        action=desk_pb2.FILING_ACTION_APPLY,
        channel=types_pb2.FILING_CHANNEL_WINDOW,
        actor="spiffe://yidi/site/440000/operator/local",
    )
    one.history.add(version=2, action=desk_pb2.FILING_ACTION_ACCEPT, cause="材料齐全")
    first, applied, accepted = record(one, NAMES).plain.splitlines()
    assert first == filing_line(one.filing, NAMES).plain
    assert applied == "    1970-01-01 08:00:00  申请  经办窗口  440000/operator/local  第 1 版"
    assert accepted == "    1970-01-01 08:00:00  审核通过  材料齐全  第 2 版"


def test_an_entitlement_says_why_and_what_next() -> None:
    """Issue: reasons, each with a plain Chinese sentence, its clause and the next step."""
    found = filing_pb2.Entitlement(
        basis=types_pb2.FILING_BASIS_FILED,
        benefit_class=types_pb2.BENEFIT_CLASS_LONG_TERM_AT_PLACE,
        filing_id=ID,
    )
    found.reasons.add(text="长期备案，在北京市就医", clause="某文 二")
    found.reasons.add(text="材料待补", next_step="请补齐材料。")
    assert entitlement(found).plain.splitlines() == [
        f"✓ 已备案  ·  长期备案地  备案 {ID}",
        "  长期备案，在北京市就医  某文 二",
        "  材料待补  ",
        "    下一步 Next step: 请补齐材料。",
    ]


def test_guidance_tells_what_the_area_says_and_nothing_empty() -> None:
    told = desk_pb2.Guidance(area_name="湛江市", telephone="0759-12345")
    told.kinds.add(
        kind=types_pb2.FILING_KIND_LONG_TERM_RESIDENT,
        channels=[types_pb2.FILING_CHANNEL_NATIONAL_APP, types_pb2.FILING_CHANNEL_WINDOW],
        any_of=[filing_pb2.MATERIAL_RESIDENCE_PERMIT, filing_pb2.MATERIAL_COMMITMENT],
        promise=True,
        validity="长期有效",
        sources=[
            desk_pb2.GuidanceSource(citation="某文 三", provenance=types_pb2.PROVENANCE_OFFICIAL)
        ],
    )
    assert guidance(told).plain.splitlines() == [
        "备案指引：湛江市",
        "  异地长期居住人员",
        "    办理渠道：国家医保服务平台APP、经办窗口",
        "    任选其一：居住证明、个人承诺书，可先作个人承诺后补",
        "    有效期：长期有效",
        "    依据：某文 三（官方文件）",
        "  电话：0759-12345",
    ]


def test_a_form_is_a_page_that_only_its_owner_reads(tmp_path: Path) -> None:
    """Forms 1 and 2 are produced; what enrollment knows stands only in the page."""
    form = desk_pb2.GetFilingFormResponse(title="登记备案表 <1>", text=["本人承诺 & 确认"])
    form.fields.add(label="姓名", filled_by="name")
    form.fields.add(label="就医地", value="北京市")
    form.fields.add(label="签名")
    file = tmp_path / "form.html"
    write_form(file, form, {"name": "<王>五"})
    page = file.read_text("utf-8")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "<h1>登记备案表 &lt;1&gt;</h1>" in page
    assert "<tr><th>姓名</th><td>&lt;王&gt;五</td></tr>" in page
    assert "<tr><th>就医地</th><td>北京市</td></tr>\n<tr><th>签名</th><td></td></tr>" in page
    assert "<p>本人承诺 &amp; 确认</p>" in page
    assert "size: A4" in page
    with pytest.raises(LocalNetworkError, match="cannot write"):
        write_form(tmp_path / "missing" / "form.html", form, {})


AS_HOSPITAL = ("--as", "institution/H11010100001")


def registered(home: Path, area: str) -> tuple[str, ...]:
    """A new employee of `area` without a filing, as options that name the person."""
    person = next(
        make_people(
            SystemRandom(),
            counties=COUNTIES[area],
            born_from=date(1970, 1, 1),
            born_until=date(1990, 1, 1),
        )
    )

    async def register() -> None:
        async with Clients.connect(home) as clients:
            site = clients.site_of_area(area)
            assert site is not None
            stub = clients.operator(enrollment_pb2_grpc.EnrollmentServiceStub, site, "enrollment")
            item = enrollment_pb2.RegisterItem(
                id=str(uuid4()),
                name=person.name,
                id_number=person.id_number,
                electronic_token=person.electronic_token,
                insured_area=area,
                insurance=types_pb2.INSURANCE_TYPE_EMPLOYEE,
                person_class=types_pb2.PERSON_CLASS_EMPLOYED,
                active_from="2024-01-01",
            )
            asked = enrollment_pb2.BatchRegisterRequest(items=[item])
            (result,) = (await stub.BatchRegister(asked, timeout=30)).results
            assert result.HasField("person_id")

    asyncio.run(register())
    credential = f"electronic:{person.electronic_token}"
    return ("--credential", credential, "--area", area, "--insurance", "employee")


def told(ran: Any, code: int = 0) -> Any:
    assert ran.returncode == code, ran.stderr
    return json.loads(ran.stdout)


def test_a_hospital_guides_a_patient_to_file_before_discharge(network: Any, yidi: Any) -> None:
    """S0-19, S3-28: an unfiled patient is guided and filed at the care place, and entitled then."""
    person = registered(network.home, "440800")
    today = business_day(SystemClock().now_ms()).isoformat()
    visit = ("--place", "110000", "--care-type", "inpatient", "--start", today)
    refused = yidi("filing", "check", *person, *visit, *AS_HOSPITAL)
    assert refused.returncode == 1
    assert "FILING_REQUIRED" in refused.stdout
    assert "备案指引：湛江市" in refused.stdout
    assert "国家医保服务平台APP" in refused.stdout
    request_id = f"test-{uuid4()}"
    apply = (
        *("filing", "apply", *person, *AS_HOSPITAL, "--request-id", request_id),
        *("--kind", "other_temporary", "--channel", "national_app", "--place", "110000"),
        *("--material", "filing_form"),
    )
    filing = told(yidi(*apply, "--json"))["answer"]["filing"]
    assert filing["state"] == "FILING_STATE_ACCEPTED"
    assert told(yidi(*apply, "--json"))["answer"]["filing"] == filing
    again = yidi(*apply)
    assert "已备案  其他跨省临时外出就医人员  湛江市 → 北京市" in again.stdout
    assert request_id in again.stdout
    entitled = yidi("filing", "check", *person, *visit, *AS_HOSPITAL)
    assert entitled.returncode == 0, entitled.stderr
    assert "✓ 已备案" in entitled.stdout
    assert filing["filingId"] in entitled.stdout
    shown = yidi("filing", "list", *person, *AS_HOSPITAL).stdout.splitlines()
    assert filing["filingId"] in shown[0]
    assert "  申请  国家医保服务平台APP  " in shown[1]


def test_an_operator_supplements_changes_and_cancels(network: Any, yidi: Any) -> None:
    """Issue: `yidi filing apply|supplement|change|cancel|list` at the insured place's own desk."""
    person = registered(network.home, "370800")
    window = ("--channel", "window")
    promised = told(
        yidi(
            *("filing", "apply", *person, *window, "--json", "--place", "110000"),
            *("--kind", "long_term_resident", "--material", "commitment"),
        )
    )["answer"]["filing"]
    assert promised["commitment"] == "COMMITMENT_STATE_PROMISED"

    def seen(filing: dict[str, Any]) -> tuple[str, ...]:
        return ("--filing", filing["filingId"], "--version", filing["version"], *window, "--json")

    permit = ("--material", "residence_permit")
    full = told(yidi("filing", "supplement", *person, *seen(promised), *permit))["answer"]["filing"]
    assert full["commitment"] == "COMMITMENT_STATE_MATERIAL_COMPLETE"
    stale = yidi("filing", "cancel", *person, *seen(promised))
    assert stale.returncode == 1
    assert "FILING_CHANGED_MEANWHILE" in stale.stderr
    elsewhere = ("--place", "440100", "--material", "commitment", *permit)
    moved = told(yidi("filing", "change", *person, *seen(full), *elsewhere))["answer"]["filing"]
    assert (moved["carePlace"], moved["replaces"]) == ("440100", full["filingId"])
    void = told(yidi("filing", "cancel", *person, *seen(moved), "--cause", "误办"))
    assert void["answer"]["filing"]["state"] == "FILING_STATE_CANCELLED"
    listed = told(yidi("filing", "list", *person, "--json"))["answer"]["filings"]
    assert {one["filing"]["filingId"] for one in listed} == {
        promised["filingId"],
        moved["filingId"],
    }
    (last,) = (one["history"][-1] for one in listed if one["filing"]["carePlace"] == "440100")
    assert (last["action"], last["cause"]) == ("FILING_ACTION_CANCEL", "误办")


def test_the_agency_reviews_what_waits_and_prints_its_forms(
    network: Any, yidi: Any, tmp_path: Path
) -> None:
    """规程 第九条: what comes by a national channel waits for a decision; forms are printed."""
    person = registered(network.home, "370800")
    area = ("--area", "370800")
    filing = told(
        yidi(
            *("filing", "apply", *person, "--channel", "national_app", "--json"),
            *("--kind", "long_term_resident", "--place", "110000"),
            *("--material", "commitment", "--material", "residence_permit"),
        )
    )["answer"]["filing"]
    filing_id = filing["filingId"]
    assert filing["state"] == "FILING_STATE_PENDING"
    assert filing_id in yidi("filing", "queue", *area).stdout
    review = ("filing", "review", filing_id, "--version", filing["version"], *area)
    assert "MESSAGE_INVALID" in yidi(*review, "--refuse").stderr
    assert yidi(*review, "--accept").stdout.startswith("已备案")
    queue = told(yidi("filing", "queue", *area, "--json"))
    assert filing_id not in {one["filing"]["filingId"] for one in queue.get("filings", [])}
    page = tmp_path / "form.html"
    form = yidi("filing", "form", filing_id, *area, "--form", "2", "--html", str(page))
    assert form.returncode == 0, form.stderr
    assert "个人承诺书" in form.stdout
    number = re.search(r"<td>(\d{17}[\dX])</td>", page.read_text("utf-8"))
    assert number is not None
    assert number[1] not in form.stdout


def test_guidance_for_a_place_and_refusals_of_the_desk(yidi: Any) -> None:
    area = ("--area", "440800", "--insurance", "employee", "--place", "110000")
    by_hospital = yidi("filing", "guidance", *area, *AS_HOSPITAL)
    assert by_hospital.returncode == 0, by_hospital.stderr
    assert by_hospital.stdout == yidi("filing", "guidance", *area).stdout
    one = told(yidi("filing", "guidance", *area, "--kind", "referral", "--json"))["guidance"]
    assert [kind["kind"] for kind in one["kinds"]] == ["FILING_KIND_REFERRAL"]
    missing = yidi("filing", "list", "--area", "440800")
    assert missing.returncode == 1
    assert "credential" in missing.stderr
    nowhere = yidi("filing", "guidance", "--area", "530100")
    assert nowhere.returncode == 2
    assert "say --site CODE" in nowhere.stderr
