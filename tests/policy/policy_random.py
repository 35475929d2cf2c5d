"""Random documents over the whole written model, and cases for them.

Everything is drawn from a `random.Random`, so that the reference test is a fixed sequence and
Hypothesis (`strategies.randoms`) can repeat what it finds.
"""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

from policy_samples import FOUNDED, a_case, row

from services.policy.domain import facts
from services.policy.domain.case import Case, Counters

_CLASSES = ("local", "long_term_at_place", "referral", "emergency", "other_temporary")
_CHOICES = {
    "routes": tuple(facts.ROUTES),
    "classes": _CLASSES,
    "persons": ("employed", "retired"),
    "levels": tuple(facts.LEVELS),
    "grades": ("three_a", "three_b", "two_b", "none"),
    "kinds": tuple(facts.KINDS),
    "aids": tuple(facts.AIDS),
    "diseases": ("M00500", "M00503", "M03900", "other"),
    "places": ("51", "5101", "530100", "other"),
}
_FLAGS = ("civil_servant", "settled_directly", "late_filing", "unfiled")
_SPANS = {"ages": (0, 150), "stays": (1, 100), "temporaries": (1, 100)}
_CODES = ("hifob_pay", "hifes_pay", "cvlserv_pay", "maf_pay", "oth_pay", "hifmi_pay")
_LIMITABLE = ("hifp_pay", "hifob_pay", "maf_pay", "hifmi_pay")


class Drawing:
    """Draws one document. A `tame` one has no gaps and nothing that grows faster than the cost: no
    deductible by share of the bill after a first pay, under a limit of the fee or under yearly or
    absolute brackets (it pushes cost out of the lower ones), no other limit by share."""

    def __init__(self, random: Random, *, tame: bool = False) -> None:
        self.random = random
        self.tame = tame

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def yuan(self, most: int = 60_000) -> str:
        if self.chance(25):
            return f"{self.random.randrange(200) / 100:.2f}元"
        return f"{self.random.randrange(most)}元"

    def percent(self, most: int = 100) -> str:
        if self.chance(20):
            return f"{self.random.randrange(most * 100 + 1) / 100:.2f}%"
        return f"{self.random.randrange(most + 1)}%"

    def points(self) -> str:
        return f"{self.random.choice((1, 5, 10, 20, 2.5, 60))}个百分点"

    def split(self) -> list[dict[str, Any]]:
        """Conditions of which exactly one holds for every case, by up to two facts."""
        many = self.random.choice((0, 0, 1, 1, 1, 2))
        keys = self.random.sample([*_CHOICES, *_FLAGS, *_SPANS], many)
        axes = [self._groups(key) for key in keys]
        return [dict(zip(keys, each, strict=True)) for each in product(*axes)]

    def _groups(self, key: str) -> list[Any]:
        if key in _FLAGS:
            return [True, False]
        if key in _SPANS:
            first, last = _SPANS[key]
            cuts = sorted(self.random.sample(range(first + 1, 8 if last == 100 else 90), 2))
            return [f"{first}-{cuts[0] - 1}", f"{cuts[0]}-{cuts[1] - 1}", f"{cuts[1]}-"]
        values = list(_CHOICES[key])
        self.random.shuffle(values)
        cut = self.random.randrange(1, len(values))
        return [values[:cut], values[cut:]]

    def when(self) -> dict[str, Any] | None:
        if self.chance(50):
            return None
        key = self.random.choice([*_CHOICES, *_FLAGS, *_SPANS])
        return {key: self.random.choice(self._groups(key))}

    def table(self, value: Any) -> list[dict[str, Any]]:
        """Rows by a split, mostly complete; `value` draws the keys of one."""
        rows = [{**conditions, **value(), **FOUNDED} for conditions in self.split()]
        if not self.tame and self.chance(2):
            if len(rows) > 1 and self.chance(50):
                rows.pop()
            else:
                rows.append({**rows[0]})
        return rows

    def _value(self, text: str) -> dict[str, Any]:
        return {"value": "not_stated" if not self.tame and self.chance(1) else text}

    def money(self, most: int, *, share: bool = False) -> dict[str, Any]:
        if share and self.chance(25):
            keys = {"share": self.percent(40), "of": self.random.choice(("total", "in_scope"))}
            return keys | ({"at_least": self.yuan(most)} if self.chance(50) else {})
        return self._value(self.yuan(most))

    def share(self, most: int = 100) -> dict[str, Any]:
        return self._value(self.percent(most))

    def brackets(self) -> list[dict[str, Any]]:
        bounds = sorted({self.yuan() for _ in range(self.random.choice((0, 0, 1, 2, 3)))})
        rows = self.table(self.share)
        for bound in bounds:
            rows += [{**each, "up_to": bound} for each in self.table(self.share)]
        return rows

    def money_changes(self) -> list[dict[str, Any]]:
        def change() -> dict[str, Any]:
            key = self.random.choice(
                ("value", "set", "minus", "plus", "times", "at_least", "at_most")
            )
            if key == "value":
                return {key: "unchanged"}
            return {key: self.percent() if key == "times" else self.yuan(1_000)}

        return [self._adjustment(change) for _ in range(self.random.choice((0, 0, 1, 2)))]

    def share_changes(self) -> list[dict[str, Any]]:
        def change() -> dict[str, Any]:
            key = self.random.choice(
                ("value", "set", "minus", "plus", "times", "own_times", "at_least", "at_most")
            )
            if key == "value":
                return {key: "unchanged"}
            return {key: self.points() if key in ("minus", "plus") else self.percent()}

        found = [self._adjustment(change) for _ in range(self.random.choice((0, 0, 1, 2, 3)))]
        for each in found:
            if self.chance(30):
                each["barred"] = True
        return found

    def _adjustment(self, change: Any) -> dict[str, Any]:
        return self.bounded({"rows": self.table(change)})

    def bounded(self, stage: dict[str, Any]) -> dict[str, Any]:
        when = self.when()
        return stage if when is None else {"when": when, **stage}

    def caps(self, code: str, of: str, own: bool) -> list[dict[str, Any]]:
        kinds = [("payment", "stay", "shared"), ("fee", "stay", "shared")]
        if code in _LIMITABLE:
            kinds.append(("payment", "year", "shared"))
            kinds += [("payment", "year", "own")] if own else []
        if of == "remaining":
            kinds += [("fee", "year", "shared")] + ([("fee", "year", "own")] if own else [])
        chosen = self.random.sample(kinds, min(len(kinds), self.random.choice((0, 1, 1, 2, 3))))
        return [
            {
                "limit": limit,
                "over": over,
                "counts": counts,
                "rows": self.table(lambda: self._limit()),
            }
            for limit, over, counts in chosen
        ]

    def _limit(self) -> dict[str, Any]:
        if self.chance(8):
            return {"value": "unlimited"}
        return self.money(20_000, share=not self.tame)

    def stages(self, own: bool) -> list[dict[str, Any]]:
        first_pays = [
            {"first_pay": self.bounded({"rows": self.table(lambda: self.share(40))})}
            for _ in range(self.random.choice((0, 0, 1, 2)))
        ]
        for each in first_pays:
            if self.chance(30):
                each["first_pay"]["barred"] = True
        position = self.random.randrange(len(first_pays) + 1)
        share = not self.tame or (position == 0 and self.chance(50))
        stages = list(first_pays)
        if self.chance(85):
            due = self.random.choice(("each_stay", "each_stay", "topped_up"))
            stage = {"due": due, "rows": self.table(lambda: self.money(2_000, share=share))}
            stage["adjust"] = self.money_changes()
            if self.chance(30):
                stage["year_cap"] = self.table(lambda: self.money(3_000))
            stages.insert(position, {"deductible": self.bounded(stage)})
        remaining = self._fund("hifp_pay", "remaining", own)
        if self.tame and share:
            remaining["caps"] = [each for each in remaining["caps"] if each["limit"] != "fee"]
            remaining["brackets"] = {"count": "above_deductible", "over": "stay"}
        stages.append({"fund": remaining})
        codes = self.random.sample(_CODES, self.random.choice((0, 1, 2, 3)))
        main = 0
        for code in codes:
            of = self.random.choice(("over_cap", "own", "own"))
            later = self._fund(code, of, own)
            if later.get("accumulate") == "year" and code in ("hifob_pay", "hifmi_pay"):
                main += 1
                if main > 1:
                    later["accumulate"] = "stay"
            stages.append({"fund": later if self.tame else self.bounded(later)})
        return stages

    def _fund(self, code: str, of: str, own: bool) -> dict[str, Any]:
        stage: dict[str, Any] = {"code": code, "name": "基金", "of": of, "ratio": self.brackets()}
        stage["adjust"] = self.share_changes()
        stage["caps"] = self.caps(code, of, own)
        stage["brackets"] = {
            "count": self.random.choice(("in_scope", "above_deductible")),
            "over": "stay" if of == "own" else self.random.choice(("stay", "year")),
        }
        if of == "remaining" and self.chance(20):
            stage["floor"] = self.bounded(
                {
                    "of": self.random.choice(("total", "in_scope")),
                    "rows": self.table(lambda: self.share(50)),
                }
            )
        if of == "over_cap" and self.chance(30):
            stage["beyond"] = self.random.sample(("shared", "own", "stay"), 2)
        if of == "own":
            parts = (
                "ratio_self_pay",
                "over_cap",
                "deductible",
                "remote_first_pay",
                "first_self_pay",
            )
            stage["parts"] = self.random.sample(parts, self.random.randrange(1, 6))
            stage["accumulate"] = self.random.choice(("stay", "year"))
            if self.chance(70):
                stage["deductible"] = self.table(lambda: self.money(3_000, share=not self.tame))
                stage["adjust_deductible"] = self.money_changes()
        return stage

    def document(self) -> dict[str, Any]:
        own = self.chance(50)
        benefit: dict[str, Any] = {
            "care_types": ["inpatient"],
            "counts_stays": True,
            "stages": self.stages(own),
        }
        if own:
            benefit["counter"] = "apart"
        data: dict[str, Any] = {
            "area": "999900",
            "insurance": "employee",
            "version": "1",
            "title": "例",
            "effective": {"start": "2000-01-01"},
            "sources": {"example": {"title": "例", "provenance": "secondary"}},
            "benefits": {"inpatient": benefit},
        }
        if self.chance(60):
            parts = ("full_self_pay", "over_limit", "first_self_pay", "in_scope")
            pays = {"pays": self.random.sample(parts, 2)} if self.chance(50) else {}
            data["account"] = {**row(), **pays}
        return data

    def fen(self, most: int = 10_000_000) -> int:
        return self.random.randrange(400 if self.chance(40) else most)

    def case(self) -> Case:
        pick = self.random.choice
        return a_case(
            route=pick(_CHOICES["routes"]),
            benefit_class=pick(_CLASSES),
            person_class=pick(_CHOICES["persons"]),
            age=self.random.randrange(100),
            deductible_level=pick(_CHOICES["levels"]),
            settlement_level=pick(_CHOICES["levels"]),
            grade=pick(_CHOICES["grades"]),
            institution_kind=pick(_CHOICES["kinds"]),
            aid=pick(_CHOICES["aids"]),
            disease=pick(("", "M00500", "M00503", "M00501", "M03900", "M04600")),
            care_area=pick(("510100", "511100", "530100", "530200", "110000")),
            civil_servant=self.chance(50),
            settled_directly=self.chance(50),
            late_filing=self.chance(50),
            unfiled=self.chance(50),
            use_account=self.chance(50),
            full_self_pay_fen=self.fen(),
            over_limit_fen=self.fen(100_000),
            first_self_pay_fen=self.fen(),
            in_scope_fen=self.fen(),
        )

    def counters(self) -> dict[str, Counters]:
        """Something used before, in some of the periods."""
        found = {}
        for suffix in ("", "-apart", "-temporary", "-hifob", "-maf", "-hifes", "-cvlserv", "-oth"):
            if self.chance(60):
                stays = self.random.randrange(5)
                found[f"2026{suffix}"] = Counters(
                    stays, *(self.fen(1_000_000) for _ in range(len(Counters._fields) - 1))
                )
        return found
