"""Filings and refusals of the desk as the contract spells them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from infra.runtime.errors import Reason, Refusal, Violation
from infra.runtime.types import chinese
from services.filing.domain.changing import (
    ChangedMeanwhile,
    EndsBeforeStart,
    Locked,
    NotFound,
    Overlapping,
    Unmoved,
)
from services.filing.domain.evidence import MaterialMissing
from services.filing.domain.facts import (
    CommitmentState,
    Filing,
    FilingChannel,
    FilingState,
    Material,
)
from services.filing.domain.life import FilingAction, StateWrong
from services.filing.domain.permitted import ChannelNotAllowed, NotEligible, PlaceUnknown
from services.filing.store import Event
from yidi.common.v1 import types_pb2
from yidi.filing.v1 import desk_pb2, filing_pb2


def filing(one: Filing) -> filing_pb2.Filing:
    """A filing."""
    return filing_pb2.Filing(
        filing_id=one.filing_id,
        kind=types_pb2.FilingKind.ValueType(one.kind),
        care_place=one.care_place,
        start_date=one.start_date.isoformat(),
        end_date=one.end_date.isoformat() if one.end_date else "",
        state=filing_pb2.FilingState.ValueType(one.state),
        version=one.version,
        insured_area=one.insured_area,
        insurance=types_pb2.InsuranceType.ValueType(one.insurance),
        channel=types_pb2.FilingChannel.ValueType(one.channel),
        filed_on=one.filed_on.isoformat(),
        commitment=types_pb2.CommitmentState.ValueType(one.commitment),
        materials=[filing_pb2.Material.ValueType(each) for each in sorted(one.materials)],
        referral_institution=one.referral_institution,
        disease_code=one.disease_code,
        due_date=one.due_date.isoformat() if one.due_date else "",
        replaces=one.replaces,
    )


def filing_answer(one: Filing) -> desk_pb2.FilingAnswer:
    """What came of a change, and what is still to be done."""
    steps = []
    if one.state is FilingState.PENDING:
        steps.append(f"备案正在审核，应于{one.due_date}前办结。")
    if one.commitment is CommitmentState.PROMISED and one.state in (
        FilingState.PENDING,
        FilingState.ACCEPTED,
    ):
        steps.append("备案材料已承诺，请尽快补齐。")
    return desk_pb2.FilingAnswer(filing=filing(one), next_steps=steps)


def listing(filings: Iterable[Filing], events: Mapping[str, list[Event]]) -> desk_pb2.ListingAnswer:
    """Filings with their history, newest first."""
    newest = sorted(filings, key=lambda one: (one.filed_on, one.filing_id), reverse=True)
    return desk_pb2.ListingAnswer(
        filings=[
            desk_pb2.FilingRecord(
                filing=filing(one), history=map(_event, events.get(one.filing_id, ()))
            )
            for one in newest
        ]
    )


def _event(event: Event) -> desk_pb2.FilingEvent:
    told = desk_pb2.FilingEvent(
        version=event.version,
        action=desk_pb2.FilingAction.ValueType(event.action),
        channel=types_pb2.FilingChannel.ValueType(event.channel or 0),
        actor=event.actor,
        cause=event.cause,
        state=filing_pb2.FilingState.ValueType(event.state),
    )
    if event.at is not None:
        told.at.FromDatetime(event.at)
    return told


UNFILED = frozenset({types_pb2.FILING_BASIS_ACCOUNT_ONLY, types_pb2.FILING_BASIS_NONE})
"""Bases on which a filing would still give more."""
Denied = Unmoved | NotEligible | PlaceUnknown | MaterialMissing
"""Why a filing is not made or not changed."""


def refusal(denied: Denied, names: Mapping[str, str]) -> Refusal:
    """The refusal of the catalogue; `names`: area code → name."""
    match denied:
        case NotEligible(cause):
            return Refusal(Reason.ERROR_REASON_FILING_NOT_ELIGIBLE, cause=cause)
        case PlaceUnknown(place):
            return Refusal(Reason.ERROR_REASON_FILING_PLACE_UNKNOWN, place=place)
        case MaterialMissing():
            return Refusal(
                Reason.ERROR_REASON_FILING_MATERIAL_MISSING, missing=denied.text(_material)
            )
        case NotFound(filing_id):
            return Refusal(Reason.ERROR_REASON_FILING_NOT_FOUND, filing=filing_id)
        case ChangedMeanwhile(one):
            return Refusal(
                Reason.ERROR_REASON_FILING_CHANGED_MEANWHILE,
                filing=one.filing_id,
                version=one.version,
            )
        case StateWrong(one, action, but):
            return Refusal(
                Reason.ERROR_REASON_FILING_STATE_WRONG,
                filing=one.filing_id,
                state=_state(one.state) + but,
                action=_action(action),
            )
        case Locked(one, until, after_cost, citation):
            paid = "该备案下已发生费用，" if after_cost else ""
            return Refusal(
                Reason.ERROR_REASON_FILING_LOCKED,
                filing=one.filing_id,
                until=until,
                cause=f"{paid}锁定期自{one.filed_on}备案起计算（{citation}）",
            )
        case ChannelNotAllowed(channel, allowed):
            return Refusal(
                Reason.ERROR_REASON_FILING_CHANNEL_NOT_ALLOWED,
                channel=channel_name(channel),
                allowed="、".join(channel_name(each) for each in sorted(allowed)),
            )
        case Overlapping(one):
            return Refusal(
                Reason.ERROR_REASON_FILING_OVERLAPS,
                place=names.get(one.care_place, one.care_place),
                kind=chinese(types_pb2.FilingKind.DESCRIPTOR, one.kind),
                start=one.start_date,
            )
        case EndsBeforeStart(one):
            fault = Violation("last_day", f"不得早于备案的开始日期{one.start_date}")
            return Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=[fault])
        case _:
            assert_never(denied)


def filing_helps(refused: Refusal) -> bool:
    """Whether a visit refused for this can be entitled by a filing (any near miss)."""
    return refused.name.startswith("FILING_")


def transient(refused: Refusal) -> bool:
    """Whether the same request may have another answer in a moment, or had one that was lost."""
    return refused.spec.retryable or refused.reason in (
        Reason.ERROR_REASON_PERSON_BUSY,
        Reason.ERROR_REASON_DEADLINE_TOO_SHORT,
        Reason.ERROR_REASON_INTERNAL,
    )


def channel_name(channel: FilingChannel) -> str:
    """The Chinese name of a channel."""
    return chinese(types_pb2.FilingChannel.DESCRIPTOR, channel)


def _material(material: Material) -> str:
    return chinese(filing_pb2.Material.DESCRIPTOR, material)


def _state(state: FilingState) -> str:
    return chinese(filing_pb2.FilingState.DESCRIPTOR, state)


def _action(action: FilingAction) -> str:
    return chinese(desk_pb2.FilingAction.DESCRIPTOR, action)
