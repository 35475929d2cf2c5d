"""Whether the material given proves a filing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.filing.domain.area_rules import Evidence
from services.filing.domain.channels import Family, family
from services.filing.domain.facts import CommitmentState, FilingChannel, Material


@dataclass(frozen=True, slots=True)
class MaterialMissing:
    """What is still needed: all of `required` and, where there are some, one of `any_of`."""

    required: frozenset[Material]
    any_of: frozenset[Material]
    promise: bool
    """Whether a personal commitment would stand for `any_of`."""

    def text(self, name: Callable[[Material], str]) -> str:
        """In Chinese: 异地就医登记备案表，以及下列之一：居住证明、个人承诺书."""
        choices = self.any_of | ({Material.COMMITMENT} if self.any_of and self.promise else set())
        one_of = "、".join(name(one) for one in sorted(choices))
        parts = ["、".join(name(one) for one in sorted(self.required))]
        parts.append(f"下列之一：{one_of}" if len(choices) > 1 else one_of)
        return "，以及".join(part for part in parts if part)


def given_by(channel: FilingChannel, materials: Iterable[Material]) -> frozenset[Material]:
    """The material that an application brings.

    Form 1 is what every channel but the window asks on its own pages, and an institution's upload
    is its certificate of the referral (医保发〔2022〕22号 三（二）: 可通过不同形式安排转诊).
    """
    given = set(materials)
    if family(channel) is not Family.WINDOW:
        given.add(Material.FILING_FORM)
    if family(channel) is Family.HOSPITAL:
        given.add(Material.REFERRAL_CERTIFICATE)
    return frozenset(given)


def judge(evidence: Evidence, given: frozenset[Material]) -> CommitmentState | MaterialMissing:
    """How the material stands, or what is missing.

    A commitment stands for `any_of` where the area takes one, until the material is supplied.
    """
    required = evidence.required - given
    proved = not evidence.any_of or bool(evidence.any_of & given)
    promised = evidence.promise and Material.COMMITMENT in given
    if required or not (proved or promised):
        any_of = frozenset[Material]() if proved or promised else evidence.any_of
        return MaterialMissing(required, any_of, evidence.promise)
    if not evidence.any_of:
        return CommitmentState.NOT_NEEDED
    return CommitmentState.MATERIAL_COMPLETE if proved else CommitmentState.PROMISED
