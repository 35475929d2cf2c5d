"""Families of channels: where a filing was made, it is changed (济宁)."""

from __future__ import annotations

from enum import Enum

from services.filing.domain.facts import FilingChannel


class Family(Enum):
    """Channels that lead to the same desk, by their Chinese name."""

    NATIONAL = "国家线上渠道"
    LOCAL_ONLINE = "参保地线上渠道"
    WINDOW = "经办窗口"
    PHONE = "电话"
    HOSPITAL = "医院上传"

    @property
    def channels(self) -> frozenset[FilingChannel]:
        """The channels of the family."""
        return frozenset(channel for channel in FilingChannel if family(channel) is self)


_FAMILIES = {
    FilingChannel.NATIONAL_APP: Family.NATIONAL,
    FilingChannel.MINI_PROGRAM: Family.NATIONAL,
    FilingChannel.STATE_COUNCIL_CLIENT: Family.NATIONAL,
    FilingChannel.LOCAL_ONLINE: Family.LOCAL_ONLINE,
    FilingChannel.WINDOW: Family.WINDOW,
    FilingChannel.PHONE: Family.PHONE,
    FilingChannel.HOSPITAL_UPLOAD: Family.HOSPITAL,
}


def family(channel: FilingChannel) -> Family:
    """The family of a channel; the three national ones are one (规程 第九条)."""
    return _FAMILIES[channel]
