"""Reads the filing rules of the areas from `rules/*.yaml`, strictly.

`national.yaml` holds what is the same everywhere, every other file is one area and is named by its
code. A key that is unknown, missing or written twice is an error that names file and key.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.filing.domain.area_rules import AreaRules, Provenance, Stated
from services.filing.domain.facts import CareType, FilingKind, PersonClass, Route

RULES = Path(__file__).parent / "rules"
_NATIONAL = "national.yaml"

Written = TypeVar("Written")
Meant = TypeVar("Meant")
Member = TypeVar("Member", bound=IntEnum)


class RulesError(Exception):
    """A file of rules cannot be used; the text names the file and what is wrong."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Value(_Strict, Generic[Written]):
    value: Written
    source: str = Field(min_length=1)
    clause: str = ""
    provenance: Literal["official", "secondary", "illustrative"]

    def stated(self, meant: Meant) -> Stated[Meant]:
        citation = f"{self.source} {self.clause}".strip()
        return Stated(meant, citation, Provenance(self.provenance))


class _ByKind(_Strict):
    long_term: _Value[int | None]
    referral: _Value[int | None]
    other_temporary: _Value[int | None]

    def by_kind(self) -> dict[FilingKind, Stated[int | None]]:
        values = {FilingKind.REFERRAL: self.referral}
        values[FilingKind.OTHER_TEMPORARY] = self.other_temporary
        values |= dict.fromkeys((kind for kind in FilingKind if kind.long_term), self.long_term)
        return {kind: value.stated(value.value) for kind, value in values.items()}


class _Institution(_Strict):
    code: str = Field(pattern=r"^[A-Z0-9]{6,30}$")
    name: str = Field(min_length=1)


class _Institutions(_Value[list[_Institution]]):
    codes: Literal["official", "illustrative"] = "official"
    """Whether the codes are real; the provenance is that of the names."""


class _Area(_Strict):
    area: str = Field(pattern=r"^[0-9]{6}$")
    name: str = Field(min_length=1)
    validity_months: _ByKind
    back_dating_days: _ByKind
    person_classes: dict[str, _Value[list[str]]] = {}
    exempt_routes: _Value[list[str]]
    account_without_filing: _Value[list[str]]
    named_referral_institutions: _Institutions
    promised_back_home_months: _Value[int | None]


class _National(_Strict):
    province_places: _Value[list[str]]


def load_area_rules(folder: Path = RULES) -> Mapping[str, AreaRules]:
    """Area code → rules, for every file in `folder`; raises `RulesError`."""
    national = _read(folder / _NATIONAL, _National)
    rules: dict[str, AreaRules] = {}
    for path in sorted(folder.glob("*.yaml")):
        if path.name == _NATIONAL:
            continue
        area = _read(path, _Area)
        if path.stem != area.area:
            raise RulesError(f"{path.name}: area: must be the name of the file, {path.stem}")
        rules[area.area] = _area_rules(path, area, national)
    return rules


def _area_rules(path: Path, area: _Area, national: _National) -> AreaRules:
    named = area.named_referral_institutions
    places = national.province_places
    return AreaRules(
        area=area.area,
        name=area.name,
        validity_months=area.validity_months.by_kind(),
        back_dating_days=area.back_dating_days.by_kind(),
        person_classes={
            _member(path, "person_classes", FilingKind, kind): value.stated(
                _members(path, f"person_classes.{kind}", PersonClass, value.value)
            )
            for kind, value in area.person_classes.items()
        },
        province_places=places.stated(frozenset(places.value)),
        exempt_routes=area.exempt_routes.stated(
            _members(path, "exempt_routes", Route, area.exempt_routes.value)
        ),
        account_without_filing=area.account_without_filing.stated(
            _members(path, "account_without_filing", CareType, area.account_without_filing.value)
        ),
        named_institutions=named.stated(frozenset(one.code for one in named.value)),
        promised_back_home_months=area.promised_back_home_months.stated(
            area.promised_back_home_months.value
        ),
    )


Model = TypeVar("Model", bound=_Strict)


def _read(path: Path, model: type[Model]) -> Model:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
        return model.model_validate(data)
    except OSError as error:
        raise RulesError(f"{path.name}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RulesError(f"{path.name}: {error}") from error
    except ValidationError as error:
        faults = [
            f"{path.name}: {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise RulesError("\n".join(faults)) from error


def _members(path: Path, key: str, enum: type[Member], names: list[str]) -> frozenset[Member]:
    return frozenset(_member(path, key, enum, name) for name in names)


def _member(path: Path, key: str, enum: type[Member], name: str) -> Member:
    try:
        return enum[name.upper()]
    except KeyError:
        known = ", ".join(member.name.lower() for member in enum)
        raise RulesError(f"{path.name}: {key}: {name} is none of {known}") from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets the last of two equal keys win; a rule written twice must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"key written twice: {sorted(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)
