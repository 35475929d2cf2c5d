"""Forms 1 (登记备案表) and 2 (个人承诺书) of a filing, as data.

The titles are those of the 规程 (附件1, 附件2); the printed annexes are not public, so columns and
wording are this project's. What only enrollment knows is marked for it to fill in.
"""

from __future__ import annotations

from collections.abc import Mapping

from infra.runtime.types import chinese
from services.filing.domain.facts import Filing, Material
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2

_TITLES = {1: "跨省异地就医登记备案表", 2: "个人承诺书"}


def form(
    number: int, person_id: str, filing: Filing, names: Mapping[str, str]
) -> desk_pb2.GetFilingFormResponse:
    """Form 1 or 2; `names`: area code → name."""
    rows = _registration(filing, names) if number == 1 else _commitment(filing, names)
    return desk_pb2.GetFilingFormResponse(
        title=_TITLES[number],
        person_id=person_id,
        fields=[
            *_person(),
            *(desk_pb2.FormField(label=label, value=value) for label, value in rows),
        ],
        text=[] if number == 1 else _promise(filing, names),
    )


def _person() -> list[desk_pb2.FormField]:
    return [
        desk_pb2.FormField(label="姓名", filled_by="name"),
        desk_pb2.FormField(label="居民身份证号", filled_by="id_number"),
    ]


def _registration(filing: Filing, names: Mapping[str, str]) -> list[tuple[str, str]]:
    rows = [
        ("联系电话", ""),
        ("参保地", _name(filing.insured_area, names)),
        ("险种", chinese(types_pb2.InsuranceType.DESCRIPTOR, filing.insurance)),
        ("备案类型", _kind(filing)),
        ("备案地", _name(filing.care_place, names)),
        ("开始日期", filing.start_date.isoformat()),
        ("结束日期", filing.end_date.isoformat() if filing.end_date else "长期"),
        ("办理日期", filing.filed_on.isoformat()),
        ("办理渠道", chinese(types_pb2.FilingChannel.DESCRIPTOR, filing.channel)),
    ]
    if filing.referral_institution:
        rows.append(("转出医疗机构", filing.referral_institution))
    if filing.disease_code:
        rows.append(("转诊病种", filing.disease_code))
    return [
        *rows,
        ("材料", "、".join(_materials(filing)) or "无"),
        ("备案编号", filing.filing_id),
        ("状态", chinese(filing_pb2.FilingState.DESCRIPTOR, filing.state)),
        ("申请人签名", ""),
        ("签名日期", ""),
    ]


def _commitment(filing: Filing, names: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        ("参保地", _name(filing.insured_area, names)),
        ("备案类型", _kind(filing)),
        ("备案地", _name(filing.care_place, names)),
        ("开始日期", filing.start_date.isoformat()),
        ("备案编号", filing.filing_id),
        ("承诺人签名", ""),
        ("签名日期", ""),
    ]


def _promise(filing: Filing, names: Mapping[str, str]) -> list[str]:
    return [
        f"本人申请办理{_kind(filing)}异地就医备案，备案地为{_name(filing.care_place, names)}，"
        "所填内容真实。",
        "本人暂时不能提供备案所需的证明材料，承诺尽快补齐；补齐前回参保地就医的待遇，"
        "本人已了解参保地的规定。",
        "所承诺的情况不属实或材料未补齐的，本人愿意按参保地的规定承担责任，"
        "退回不应由医保基金支付的费用。",
    ]


def _materials(filing: Filing) -> list[str]:
    named = sorted(filing.materials - {Material.FILING_FORM})
    return [chinese(filing_pb2.Material.DESCRIPTOR, one) for one in named]


def _kind(filing: Filing) -> str:
    return chinese(types_pb2.FilingKind.DESCRIPTOR, filing.kind)


def _name(area: str, names: Mapping[str, str]) -> str:
    return names.get(area, area)
