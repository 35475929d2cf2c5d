"""`yidi institution` and `yidi mapping`: registered, found, submitted, reviewed on a network."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Protocol

import pytest
from google.protobuf import json_format

from infra.cli.client import Clients
from infra.cli.mappings import read_mappings
from infra.local.processes import LocalNetworkError
from infra.local.supervisor import Network
from infra.runtime.errors import Refusal
from yidi.catalog.v1 import registry_pb2
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import catalog_desk_pb2, catalog_desk_pb2_grpc

HOSPITAL, NEW = "H44080000001", "H44080088888"
AS_HOSPITAL = ("--as", f"institution/{HOSPITAL}")
ASPIRIN = "XB01AC06A013-SAMPLE"
HEADER = "item_code,item_name,list_type,national_code,start_date,end_date"


class Yidi(Protocol):
    def __call__(self, *arguments: str) -> CompletedProcess[str]: ...


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mappings.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_mappings_are_read_row_by_row(tmp_path: Path) -> None:
    file = written(tmp_path, f"\ufeff{HEADER}\nN1, 阿司匹林 ,101,{ASPIRIN},2026-01-01,\n")
    assert read_mappings(file) == [
        registry_pb2.ItemMapping(
            item_code="N1",
            item_name="阿司匹林",
            list_type=types_pb2.LIST_TYPE_DRUG,
            national_code=ASPIRIN,
            start_date="2026-01-01",
        )
    ]
    short = written(tmp_path, f"national_code,item_code,start_date\n{ASPIRIN},N1,2026-01-01\n")
    assert [one.item_code for one in read_mappings(short)] == ["N1"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the columns are"),
        (f"{HEADER},more\n", "the columns are"),
        ("item_code,start_date\nN1,2026-01-01\n", "the columns are"),
        (f"{HEADER}\n", "has no rows"),
        (f"{HEADER}\nN1,,,A,2026-01-01,,x\n", ":2: more cells than columns"),
        (f"{HEADER}\nN1,,,A,2026-01-01,\nN2,,999,A,2026-01-01,\n", ":3: '999' is none of"),
        (f'{HEADER}\n"N1,,,A\n', "unexpected end of data"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(LocalNetworkError, match=fault):
        read_mappings(written(tmp_path, text))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    with pytest.raises(LocalNetworkError, match="cannot read"):
        read_mappings(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LocalNetworkError, match="not UTF-8"):
        read_mappings(file)


def records(done: CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["mappings"]
    return found


def test_an_institution_is_registered_shown_and_found(yidi: Yidi, tmp_path: Path) -> None:
    """S3-10: patients choose a networked institution."""
    three = types_pb2.INSTITUTION_LEVEL_THREE
    chronic = registry_pb2.INSTITUTION_SERVICE_CHRONIC
    record = registry_pb2.InstitutionRecord(
        code=NEW,
        name="示例命令行医院",
        kind=registry_pb2.INSTITUTION_KIND_MEDICAL,
        area="440800",
        grade=types_pb2.INSTITUTION_GRADE_THREE_A,
        deductible_level=three,
        price_limit_level=three,
        settlement_level=three,
        networked=[
            registry_pb2.RouteServices(
                route=types_pb2.ROUTE_CROSS_PROVINCE,
                services=[registry_pb2.INSTITUTION_SERVICE_INPATIENT, chronic],
            )
        ],
        diseases=[registry_pb2.OpenedDisease(disease_code="M00500", start_date="2026-01-01")],
        agreement_end_date="2030-12-31",
        place="示例路 8 号",
        start_date="2026-01-01",
    )
    ask = registry_pb2.RegisterInstitutionsRequest(institutions=[record])
    file = tmp_path / "institutions.json"
    file.write_text(json_format.MessageToJson(ask), encoding="utf-8")
    done = yidi("institution", "register", str(file))
    assert (done.returncode, "登记 1 条，未变 0 条" in done.stdout) == (0, True), done.stderr
    assert "登记 0 条，未变 1 条" in yidi("institution", "register", str(file)).stdout

    shown = yidi("institution", "show", NEW).stdout
    for text in ("自 2026-01-01 起", "示例命令行医院", "住院、门诊慢特病", "2030-12-31", "M00500"):
        assert text in shown
    for caller in ((), AS_HOSPITAL):
        found = yidi(
            "institution",
            "search",
            "示例命令行",
            "--area",
            "440800",
            "--disease",
            "M00503",
            *caller,
        )
        assert (found.returncode, NEW in found.stdout) == (0, True), found.stderr
        none = yidi(
            *(
                "institution",
                "search",
                "示例命令行",
                "--area",
                "440800",
                "--route",
                "local",
                *caller,
            )
        )
        assert "没有找到" in none.stdout
    assert "operator" in yidi("institution", "show", NEW, *AS_HOSPITAL).stderr
    missing = yidi("institution", "show", "H44080077777")
    assert (missing.returncode, "INSTITUTION_UNKNOWN" in missing.stderr) == (1, True)


def test_a_mapping_goes_from_the_institution_to_the_agency_and_back(
    yidi: Yidi, tmp_path: Path
) -> None:
    """3301, 3302 and 1317: an institution sees, submits and withdraws what is its own."""
    rows = f"{HEADER}\nCLI1,,,{ASPIRIN},2026-01-01,\nCLI2,,,{ASPIRIN},2026-01-01,2026-12-31\n"
    file = str(written(tmp_path, rows))
    done = yidi("mapping", "submit", file, *AS_HOSPITAL, "--request-id", "cli-request-1")
    assert "已提交 2 条，待审核" in done.stdout, done.stderr
    again = yidi("mapping", "submit", file, *AS_HOSPITAL, "--request-id", "cli-request-1", "--json")
    first, second = (one["mappingId"] for one in records(again))
    waiting = yidi("mapping", "list", "--institution", HOSPITAL, "--state", "pending", "--json")
    assert [one["mappingId"] for one in records(waiting)] == [first, second]

    site = ("--site", "440000")
    assert "审核通过" in yidi("mapping", "approve", first, *site).stdout
    refused = yidi("mapping", "refuse", second, "--reason", "剂型不符", *site)
    assert ("审核不通过" in refused.stdout, "剂型不符" in refused.stdout) == (True, True)
    own = yidi("mapping", "list", "--item", "CLI2", *AS_HOSPITAL, "--json")
    assert [(one["state"], one["reason"]) for one in records(own)] == [
        ("MAPPING_STATE_REFUSED", "剂型不符")
    ]
    withdrawn = yidi("mapping", "withdraw", "CLI1", "--day", "2026-06-01", *AS_HOSPITAL, "--json")
    [record] = records(withdrawn)
    assert record["mapping"]["endDate"] == "2026-05-31"
    twice = yidi(*("mapping", "withdraw", "CLI1", "--day", "2026-06-01", "--institution", HOSPITAL))
    assert (twice.returncode, "没有可撤销的对照" in twice.stderr) == (1, True)


def test_an_institution_sees_its_own_mappings_and_items_of_its_site(network: Network) -> None:
    """The front door takes the institution from the certificate and refuses other sites' areas."""

    async def ask() -> None:
        async with Clients.connect(network.home) as clients:
            kind = catalog_desk_pb2_grpc.CatalogDeskServiceStub
            other = clients.institution(kind, "440000", "H44010000001")
            listed = await other.ListItemMappings(
                catalog_desk_pb2.ListItemMappingsRequest(page_size=1000), timeout=5
            )
            assert {one.institution for one in listed.mappings} == {"H44010000001"}
            wanted = catalog_desk_pb2.SearchCatalogItemsRequest(
                area="440800", text=ASPIRIN, day="2026-10-01"
            )
            items = (await other.SearchCatalogItems(wanted, timeout=5)).items
            assert [item.national_code for item in items] == [ASPIRIN]
            wanted.area = "110000"
            with pytest.raises(Refusal) as caught:
                await other.SearchCatalogItems(wanted, timeout=5)
            assert caught.value.name == "FOREIGN_CODE"

    asyncio.run(ask())
