"""How documents come into force: draft, review by another person, publication, retirement.

Each change is one statement with its claim of the caller's request id and its audit row. Whoever
loses a race reads again: their own repetition gets the stored answer, another's change a refusal.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, date, datetime

from infra.runtime.call import Call
from infra.runtime.clock import Clock, instant, new_id
from infra.runtime.database import Database
from infra.runtime.days import parse_day
from infra.runtime.digest import body_digest
from infra.runtime.errors import Reason, Refusal, Violation
from services.policy import messages
from services.policy.domain.compiling import dotted
from services.policy.domain.differing import differences
from services.policy.domain.document import Document
from services.policy.loader import NOTICE, new_document
from services.policy.reading import Examined, Problem, examine
from services.policy.service import PolicyService, stored_document
from services.policy.simulating import PastCases, simulate
from services.policy.store import ChangedMeanwhile, Claim, Store, Stored
from yidi.policy.v1 import publishing_pb2

ATTEMPTS = 5
LIST_PAGE = 100
_STATES = messages.spelt(publishing_pb2.PolicyState.DESCRIPTOR)
_TITLES = {
    "draft": "草稿",
    "reviewed": "已复核",
    "refused": "复核未通过",
    "published": "已发布",
    "retired": "已废止",
}
_SEVERITIES = {
    "error": publishing_pb2.SEVERITY_ERROR,
    "warning": publishing_pb2.SEVERITY_WARNING,
}
_Change = (
    publishing_pb2.CreateDraftRequest
    | publishing_pb2.ReviewDraftRequest
    | publishing_pb2.PublishPolicyRequest
    | publishing_pb2.RetirePolicyRequest
)


class PublishingServicer:
    """`yidi.policy.v1.PublishingService`; `computing` is the same replica's."""

    def __init__(
        self, *, database: Database, clock: Clock, computing: PolicyService, past: PastCases
    ) -> None:
        self._store = Store(database)
        self._clock = clock
        self._computing = computing
        self._past = past

    async def ValidatePolicy(
        self, request: publishing_pb2.ValidatePolicyRequest, _: Call
    ) -> publishing_pb2.ValidatePolicyResponse:
        examined = await asyncio.to_thread(examine, request.written)
        document = examined.document
        return publishing_pb2.ValidatePolicyResponse(
            findings=_findings(examined.problems),
            hash=b"" if document is None else document.hash,
        )

    async def CreateDraft(
        self, request: publishing_pb2.CreateDraftRequest, call: Call
    ) -> publishing_pb2.CreateDraftResponse:
        examined: Examined = await asyncio.to_thread(examine, request.written)
        document = examined.document
        if document is None or examined.errors:
            return publishing_pb2.CreateDraftResponse(findings=_findings(examined.problems))
        if document.area != request.insured_area:
            raise Refusal(
                Reason.ERROR_REASON_FOREIGN_CODE, field="written.area", value=document.area
            )
        new = new_document(document, examined.data, request.written)
        warnings = json.dumps(examined.problems, ensure_ascii=False)

        async def draft(claim: Claim, now: datetime) -> Stored:
            await self._refuse_published(new.area, new.insurance, new.version)
            draft_id = new_id(self._clock)
            await self._store.draft(
                claim, now, draft_id, new, warnings=warnings, comment=request.comment
            )
            return await self._draft(draft_id)

        stored = await self._once(request, "CreateDraft", call, draft)
        return publishing_pb2.CreateDraftResponse(
            policy=_version(stored), findings=_findings(examined.problems)
        )

    async def ReviewDraft(
        self, request: publishing_pb2.ReviewDraftRequest, call: Call
    ) -> publishing_pb2.ReviewDraftResponse:
        async def review(claim: Claim, now: datetime) -> Stored:
            stored = await self._draft(request.draft_id)
            _require(stored, "draft")
            if stored.author == claim.caller:
                raise Refusal(Reason.ERROR_REASON_POLICY_SECOND_PERSON)
            if stored.hash != request.hash:
                fault = Violation("hash", "与该草稿的内容不符，请复核后重新提交。")
                raise Refusal(Reason.ERROR_REASON_MESSAGE_INVALID, violations=[fault])
            await self._store.review(
                claim, now, request.draft_id, approved=request.approve, comment=request.comment
            )
            return await self._draft(request.draft_id)

        stored = await self._once(request, "ReviewDraft", call, review)
        return publishing_pb2.ReviewDraftResponse(policy=_version(stored))

    async def PublishPolicy(
        self, request: publishing_pb2.PublishPolicyRequest, call: Call
    ) -> publishing_pb2.PublishPolicyResponse:
        async def publish(claim: Claim, now: datetime) -> Stored:
            stored = await self._draft(request.draft_id)
            _require(stored, "reviewed")
            activated_at = now + NOTICE
            if request.HasField("activate_time"):
                activated_at = request.activate_time.ToDatetime(UTC)
            if activated_at < now + NOTICE:
                seconds = int(NOTICE.total_seconds())
                raise Refusal(Reason.ERROR_REASON_POLICY_ACTIVATION_TOO_SOON, seconds=seconds)
            await self._refuse_published(
                stored.area, stored.insurance, stored.version, but=request.draft_id
            )
            # The rules of checking may have changed since it was drafted.
            written, _, _ = await self._store.content(stored)
            errors = (await asyncio.to_thread(examine, written)).errors
            if errors:
                faults = [Violation(f"line {each.line} {each.path}", each.text) for each in errors]
                raise Refusal(Reason.ERROR_REASON_POLICY_INVALID, violations=faults)
            await self._store.publish(
                claim, now, request.draft_id, activated_at=activated_at, comment=request.comment
            )
            return await self._draft(request.draft_id)

        stored = await self._once(request, "PublishPolicy", call, publish)
        return publishing_pb2.PublishPolicyResponse(policy=_version(stored))

    async def RetirePolicy(
        self, request: publishing_pb2.RetirePolicyRequest, call: Call
    ) -> publishing_pb2.RetirePolicyResponse:
        from_day = parse_day(request.from_day, "from_day")

        async def retire(claim: Claim, now: datetime) -> Stored:
            stored = await self._published(request.published)
            _require(stored, "published")
            assert stored.publication is not None
            if stored.published_by == claim.caller:
                raise Refusal(Reason.ERROR_REASON_POLICY_SECOND_PERSON)
            await self._store.retire(
                claim,
                now,
                stored.publication,
                from_day=from_day,
                activated_at=now + NOTICE,
                comment=request.comment,
            )
            return await self._published(request.published)

        stored = await self._once(request, "RetirePolicy", call, retire)
        return publishing_pb2.RetirePolicyResponse(policy=_version(stored))

    async def ListPolicies(
        self, request: publishing_pb2.ListPoliciesRequest, _: Call
    ) -> publishing_pb2.ListPoliciesResponse:
        size = request.page_size or LIST_PAGE
        states = [_STATES[state] for state in request.states if state in _STATES]
        # One more than asked for says whether there is another page.
        found = await self._store.list(request.insured_area, states, request.page_token, size + 1)
        return publishing_pb2.ListPoliciesResponse(
            policies=[_version(stored) for _, stored in found[:size]],
            next_page_token=found[size - 1][0] if len(found) > size else "",
        )

    async def GetPolicy(
        self, request: publishing_pb2.GetPolicyRequest, _: Call
    ) -> publishing_pb2.GetPolicyResponse:
        stored = await self._selected(request.policy)
        written, canonical, _hash = await self._store.content(stored)
        return publishing_pb2.GetPolicyResponse(
            policy=_version(stored), written=written, canonical=canonical
        )

    async def DiffPolicies(
        self, request: publishing_pb2.DiffPoliciesRequest, _: Call
    ) -> publishing_pb2.DiffPoliciesResponse:
        before = await self._document(request.before)
        after = await self._document(request.after)
        found = await asyncio.to_thread(differences, before, after)
        return publishing_pb2.DiffPoliciesResponse(
            changes=[
                publishing_pb2.PolicyChange(path=dotted(each.path), text=each.text)
                for each in found
            ]
        )

    async def SimulatePolicy(
        self, request: publishing_pb2.SimulatePolicyRequest, _: Call
    ) -> publishing_pb2.SimulatePolicyResponse:
        for name in ("from_day", "to_day"):
            parse_day(getattr(request, name), name)
        document = await self._document(request.policy)
        return await simulate(self._past, self._computing.book, document, request)

    async def _once(
        self,
        request: _Change,
        method: str,
        call: Call,
        change: Callable[[Claim, datetime], Awaitable[Stored]],
    ) -> Stored:
        """Make a change, or answer with what the same request made before."""
        caller = call.caller.spiffe_id
        claim = Claim(caller, method, request.request_id, body_digest(request))
        for _ in range(ATTEMPTS):
            before = await self._answered(claim)
            if before is not None:
                return before
            try:
                return await change(claim, instant(self._clock))
            except ChangedMeanwhile:
                continue
            except Refusal:
                # What stands in the way may be the same request's, made while we looked.
                before = await self._answered(claim)
                if before is None:
                    raise
                return before
        raise Refusal(Reason.ERROR_REASON_SERVICE_UNAVAILABLE, service="policy")

    async def _answered(self, claim: Claim) -> Stored | None:
        """What the request id was used for before; raise `Refusal` (REQUEST_ID_REUSED)."""
        claimed = await self._store.claimed(claim.caller, claim.method, claim.request_id)
        if claimed is None:
            return None
        digest, draft_id, publication = claimed
        if digest != claim.body_digest:
            raise Refusal(Reason.ERROR_REASON_REQUEST_ID_REUSED, request_id=claim.request_id)
        if draft_id is not None:
            return await self._draft(draft_id)
        return _found(await self._store.show_publication(publication or 0), "")

    async def _refuse_published(
        self, area: str, insurance: str, version: str, *, but: str = ""
    ) -> None:
        found = await self._store.show_published(area, insurance, version)
        if found is None:
            return
        if found.draft_id == but:  # by somebody else, since we looked
            _require(found, "reviewed")
        raise Refusal(Reason.ERROR_REASON_POLICY_VERSION_PUBLISHED, area=area, version=version)

    async def _draft(self, draft_id: str) -> Stored:
        return _found(await self._store.show_draft(draft_id), draft_id)

    async def _published(self, key: publishing_pb2.PolicyKey) -> Stored:
        insurance = messages.INSURANCES[key.insurance]
        found = await self._store.show_published(key.insured_area, insurance, key.version)
        return _found(found, f"{key.insured_area}/{insurance}/{key.version}")

    async def _selected(self, selector: publishing_pb2.PolicySelector) -> Stored:
        if selector.HasField("published"):
            return await self._published(selector.published)
        return await self._draft(selector.draft_id)

    async def _document(self, selector: publishing_pb2.PolicySelector) -> Document:
        _, canonical, digest = await self._store.content(await self._selected(selector))
        return await asyncio.to_thread(stored_document, canonical, digest)


def _found(stored: Stored | None, name: str) -> Stored:
    if stored is None:
        raise Refusal(Reason.ERROR_REASON_POLICY_VERSION_NOT_FOUND, version=name)
    return stored


def _require(stored: Stored, state: str) -> None:
    if stored.state != state:
        raise Refusal(
            Reason.ERROR_REASON_POLICY_STATE_WRONG,
            version=stored.name,
            state=_TITLES[stored.state],
        )


def _findings(problems: Iterable[Problem]) -> list[publishing_pb2.Finding]:
    """Errors before warnings, by line."""
    return [
        publishing_pb2.Finding(
            severity=_SEVERITIES[each.severity], path=each.path, line=each.line, text=each.text
        )
        for each in sorted(problems, key=lambda each: (each.severity != "error", each.line))
    ]


def _version(stored: Stored) -> publishing_pb2.PolicyVersion:
    version = publishing_pb2.PolicyVersion(
        draft_id=stored.draft_id or "",
        insured_area=stored.area,
        insurance=messages.INSURANCE_VALUES[stored.insurance],
        version=stored.version,
        title=stored.title,
        hash=stored.hash,
        state=_state(stored.state),
        effective_from=stored.effective_from.isoformat(),
        effective_to="" if stored.effective_to == date.max else stored.effective_to.isoformat(),
        publication_number=stored.publication or 0,
        retired_from="" if stored.retired_from is None else stored.retired_from.isoformat(),
        warnings=_findings(Problem(*each) for each in json.loads(stored.warnings or "[]")),
    )
    if stored.activated_at is not None:
        version.activate_time.FromDatetime(stored.activated_at)
    reviewed = "reviewed" if stored.approved else "refused"
    for state, at, actor, comment in (
        ("draft", stored.drafted_at, stored.author, stored.draft_comment),
        (reviewed, stored.reviewed_at, stored.reviewer, stored.review_comment),
        ("published", stored.published_at, stored.published_by, stored.publish_comment),
        ("retired", stored.retired_at, stored.retired_by, stored.retire_comment),
    ):
        if at is not None:
            event = version.history.add(state=_state(state), actor=actor, comment=comment)
            event.time.FromDatetime(at)
    return version


def _state(name: str) -> publishing_pb2.PolicyState.ValueType:
    return publishing_pb2.PolicyState.Value(f"POLICY_STATE_{name.upper()}")
