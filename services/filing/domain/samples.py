"""What an area's rules grant where sample values may not pay anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from services.filing.domain.area_rules import AreaRules, Exemption, Provenance, Stated
from services.filing.domain.facts import BenefitClass

Key = TypeVar("Key")
Value = TypeVar("Value")


def granting(rules: Mapping[str, AreaRules], allow_illustrative: bool) -> Mapping[str, AreaRules]:
    """Area → the rules that decide on entitlement: without samples unless they may pay."""
    if allow_illustrative:
        return rules
    return {area: without_samples(one) for area, one in rules.items()}


def without_samples(rules: AreaRules) -> AreaRules:
    """The rules with nothing granted on an ILLUSTRATIVE value.

    Exemptions, account use and care without filing are then not granted, named referrals have the
    plain level and no place is linked. What restricts stays: it pays nobody.
    """
    unnamed = {
        key: replace(stated, value=replace(stated.value, named={}))
        if stated.provenance is Provenance.ILLUSTRATIVE
        else stated
        for key, stated in rules.referrals.items()
    }
    nowhere = Exemption(frozenset(), frozenset(), BenefitClass.OTHER_TEMPORARY)
    return replace(
        rules,
        exemption=_instead(rules.exemption, nowhere),
        account_without_filing=_instead(rules.account_without_filing, False),
        unfiled_class=_instead(rules.unfiled_class, None),
        linked_places=_instead(rules.linked_places, {}),
        referrals=unnamed,
    )


def _instead(table: Mapping[Key, Stated[Value]], nothing: Value) -> Mapping[Key, Stated[Value]]:
    return {
        key: replace(stated, value=nothing)
        if stated.provenance is Provenance.ILLUSTRATIVE
        else stated
        for key, stated in table.items()
    }
