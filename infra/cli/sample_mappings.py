"""Sample mappings (目录对照) that do not count yet: submitted by `yidi up` as a hospital does.

Those that count are loaded with the sample catalogues; the items here are in no sample visit.
Request ids are fixed, so that submitting again changes nothing.
"""

from __future__ import annotations

from infra.cli.client import Clients
from yidi.catalog.v1 import registry_pb2, registry_pb2_grpc
from yidi.common.v1 import types_pb2
from yidi.gateway.v1 import catalog_desk_pb2, catalog_desk_pb2_grpc

_SITE, _HOSPITAL = "110000", "H11010100001"
_CALL_S = 5.0
_SUBMITTED = (
    ("Y901", "阿司匹林肠溶片（新包装）", "XB01AC06A013-SAMPLE", types_pb2.LIST_TYPE_DRUG),
    ("X901", "电子胃镜检查（无痛）", "0031090500810000-SAMPLE", types_pb2.LIST_TYPE_SERVICE),
    (
        "C901",
        "冠脉药物洗脱支架（新型）",
        "C0201010010000101-SAMPLE",
        types_pb2.LIST_TYPE_CONSUMABLE,
    ),
)
_REFUSED = "X901"


async def submit_sample_mappings(clients: Clients) -> None:
    """Submit a few mappings at one hospital and refuse one of them; the others wait."""
    if _SITE not in clients.sites:
        return
    desk = clients.institution(catalog_desk_pb2_grpc.CatalogDeskServiceStub, _SITE, _HOSPITAL)
    submitted = catalog_desk_pb2.SubmitItemMappingsRequest(
        request_id="sample-mappings-1",
        mappings=[
            registry_pb2.ItemMapping(
                item_code=item_code,
                item_name=name,
                list_type=list_type,
                national_code=national_code,
                start_date="2026-01-01",
            )
            for item_code, name, national_code, list_type in _SUBMITTED
        ],
    )
    recorded = (await desk.SubmitItemMappings(submitted, timeout=_CALL_S)).mappings
    registry = clients.operator(registry_pb2_grpc.RegistryServiceStub, _SITE, "catalog")
    refused = registry_pb2.ReviewMappingsRequest(
        request_id="sample-review-1",
        mapping_ids=[one.mapping_id for one in recorded if one.mapping.item_code == _REFUSED],
        approve=False,
        reason="麻醉费用应单独对照（示例）",
    )
    await registry.ReviewMappings(refused, timeout=_CALL_S)
