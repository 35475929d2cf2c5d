"""A site that is down: the others go on, nothing is half-stored (PROTOCOL §1, §5, §10 line 3)."""

from __future__ import annotations

import pytest
from real_network import RealNetwork
from world import BEIJING, GUANGDONG, GUANGZHOU, ZHANJIANG

from infra.runtime.config import NATION
from infra.runtime.errors import Refusal
from yidi.common.v1 import types_pb2

COMPLETED = types_pb2.SETTLEMENT_STATE_COMPLETED


async def _state(path: RealNetwork, settlement_id: str) -> tuple[str, str]:
    row = await path.admins[BEIJING].fetchrow(
        """SELECT j.state, b.state AS bill FROM settlement.care_journal j
           JOIN settlement.bill b USING (institution, visit_id, bill_id)
           WHERE j.settlement_id = $1::uuid""",
        settlement_id,
    )
    return row["state"], row["bill"]


async def test_a_province_that_is_down(path: RealNetwork) -> None:
    """Refused before anything was sent on: REJECTED, and the bill is free again."""
    patient, local = await path.patients(2)
    plans = path.kill(GUANGDONG, "relay")
    try:
        refusal = await path.unreachable(patient, BEIJING)
        assert refusal.name == "SITE_UNREACHABLE"
        assert "广东" in refusal.message
        assert "重试" in refusal.next_step
        assert await _state(path, refusal.details["settlement_id"]) == ("REJECTED", "REJECTED")
        decided = await path.admins[GUANGDONG].fetchval(
            "SELECT count(*) FROM settlement.decision WHERE settlement_id = $1::uuid",
            refusal.details["settlement_id"],
        )
        assert decided == 0
        # Inside the province nobody needs its edge.
        for care_area in (GUANGZHOU, ZHANJIANG):
            answer = await path.settle(path.request(local, care_area=care_area))
            assert answer.state == COMPLETED
    finally:
        path.start(plans)
        await path.recovered(patient, BEIJING)
    assert (await path.settle(path.request(patient))).state == COMPLETED


async def test_the_nation_is_down(path: RealNetwork) -> None:
    """LOCAL and IN_PROVINCE work, also after a restart of the province's processes."""
    patient, local = await path.patients(2)
    plans = path.kill(NATION, "relay")
    try:
        refusal = await path.unreachable(patient, BEIJING)
        assert refusal.name == "SITE_UNREACHABLE"
        assert "国家平台" in refusal.message
        assert await _state(path, refusal.details["settlement_id"]) == ("REJECTED", "REJECTED")
        for care_area in (GUANGZHOU, ZHANJIANG):
            answer = await path.settle(path.request(local, care_area=care_area))
            assert answer.state == COMPLETED
        restarted = [
            *path.kill(GUANGDONG, "relay"),
            *path.kill(GUANGDONG, "gateway"),
            *path.kill(GUANGDONG, "settlement"),
        ]
        path.start(restarted, without={plan.name for plan in plans})
        for care_area in (GUANGZHOU, ZHANJIANG):
            await path.recovered(local, care_area)
            for replica in (0, 1):
                request = path.request(local, care_area=care_area)
                assert (await path.settle(request, replica=replica)).state == COMPLETED
        # After the restart nobody here knows another province: that is said, and nothing stored.
        request = path.request(local, care_area=ZHANJIANG)
        request.bill.visit.insured_area = BEIJING
        with pytest.raises(Refusal) as caught:
            await path.settle(request)
        assert caught.value.name == "DIRECTORY_STALE"
        left = await path.admins[GUANGDONG].fetchval(
            "SELECT count(*) FROM settlement.request_key WHERE request_id = $1",
            request.request_id,
        )
        assert left == 0
    finally:
        path.start(plans)
        await path.recovered(patient, BEIJING)
    assert (await path.settle(path.request(patient))).state == COMPLETED
