"""Filing rules as data: what the files say, and every way in which one can be wrong."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from command import run_yidi
from hypothesis import given, settings
from hypothesis import strategies as st

from services.filing.domain.area_rules import (
    AreaRules,
    BackHome,
    Exemption,
    Lock,
    Provenance,
    Stated,
)
from services.filing.domain.facts import (
    BenefitClass,
    CareType,
    FilingKind,
    InsuranceType,
    PersonClass,
    Route,
)
from services.filing.rule_keys import CARE, CHANNEL, INSURANCE, KEYS, KIND, ROUTE, spelt
from services.filing.written_rules import (
    NATIONAL,
    RULES,
    Examined,
    RulesError,
    examine_area_rules,
    load_area_rules,
)

AREAS = load_area_rules()
ZHANJIANG, JINING, DATONG = AREAS["440800"], AREAS["370800"], AREAS["140200"]
LONG_TERM = [kind for kind in FilingKind if kind.long_term]
EMPLOYEE, RESIDENT = InsuranceType.EMPLOYEE, InsuranceType.RESIDENT
GUIDE = Path(__file__).parents[2] / "docs" / "filing.md"
ROUTES = (Route.IN_PROVINCE, Route.CROSS_PROVINCE)


def tables(rules: AreaRules) -> dict[str, Any]:
    return {one.name: getattr(rules, one.name) for one in fields(rules) if one.name in KEYS}


# --- what the files say


def test_every_value_says_where_it_stands():
    assert (
        set(AREAS)
        == {path.stem for path in RULES.glob("[0-9]*.yaml")}
        >= {
            "110000",
            "140200",
            "370100",
            "370800",
            "440100",
            "440800",
            "442000",
            "510100",
        }
    )
    for rules in AREAS.values():
        assert set(tables(rules)) == set(KEYS)
        for table in tables(rules).values():
            for one in table.values():
                assert isinstance(one, Stated)
                assert one.citation
                assert ("示例" in one.citation) == (one.provenance is Provenance.ILLUSTRATIVE)


def test_lock_in_of_the_areas():
    """S2-12, S2-13, S4-9: 济宁 only once cost occurred there, 湛江 always, 大同 none."""
    for kind, route in product(LONG_TERM, ROUTES):
        assert JINING.lock[kind, route].value == Lock(6, only_after_cost=True)
        assert ZHANJIANG.lock[kind, route].value == Lock(6, only_after_cost=False)
        assert DATONG.lock[kind, route].value.months == 0
        assert ZHANJIANG.lock[kind, route].provenance is Provenance.OFFICIAL


def test_back_home():
    """S0-30, S2-27, S4-14: a promise alone is worth less, in 济宁 for six months."""
    for insurance in InsuranceType:
        assert JINING.back_home[insurance,].value == BackHome(6, BenefitClass.OTHER_TEMPORARY)
        assert ZHANJIANG.back_home[insurance,].value.promised_months == 0


def test_exemptions():
    """S2-9, S2-38, S4-58; pairs of areas: 成都."""
    nowhere = Exemption(frozenset(), frozenset(), BenefitClass.OTHER_TEMPORARY)
    for insurance in InsuranceType:
        own_province = JINING.exemption[insurance,].value
        assert own_province.routes == {Route.IN_PROVINCE}
        assert not own_province.places
        assert ZHANJIANG.exemption[insurance,].value == nowhere
        pairs = AREAS["510100"].exemption[insurance,]
        assert pairs.value.places == {"500000", "520000", "530000", "540000"}
        assert pairs.provenance is Provenance.SECONDARY


def test_account_without_filing():
    """S1-20: in 大同, of employees, for outpatient care and pharmacies, whatever the province."""
    granted = {key for key, one in DATONG.account_without_filing.items() if one.value}
    assert granted == {(EMPLOYEE, CareType.OUTPATIENT), (EMPLOYEE, CareType.PHARMACY)}
    others = [rules for code, rules in AREAS.items() if code != "140200"]
    assert not any(one.value for rules in others for one in rules.account_without_filing.values())


def test_unfiled_care():
    """S2-38; only 中山 pays it, and only residents' inpatient care."""
    paid = {
        (code, *key): one.value
        for code, rules in AREAS.items()
        for key, one in rules.unfiled_class.items()
        if one.value is not None
    }
    assert paid == {
        ("442000", route, RESIDENT, care): BenefitClass.OTHER_TEMPORARY
        for route in ROUTES
        for care in (CareType.INPATIENT, CareType.INJURY_INPATIENT)
    }


def test_bound_to_an_institution():
    """S2-41, S2-42: not elsewhere in 济宁, neither as to the level nor as to the number."""
    for care in (CareType.OUTPATIENT, CareType.CHRONIC):
        assert [JINING.bound_to_institution[care, route].value for route in Route] == [
            True,
            False,
            False,
        ]


def test_named_institutions_of_zhanjiang():
    """S4-18, S4-19: four hospitals and the people's hospitals of five counties and cities."""
    for route in ROUTES:
        stated = ZHANJIANG.referrals[route,]
        assert stated.citation == "湛医保〔2023〕11号 二（六）"
        names = set(stated.value.named.values())
        assert len(names) == 9
        assert {f"{county}人民医院" for county in ("徐闻县", "遂溪县", "廉江市")} <= names
        assert stated.value.others_accepted


def test_national_places():
    """S1-18, S0-6; 医保发〔2024〕21号 一（一）."""
    for rules in AREAS.values():
        assert len(rules.province_places[()].value) == 7
        linked = rules.linked_places[()].value
        assert linked["440100"] == {"449900"}
        assert linked["449900"] == {"440100"}


def test_an_area_stands_before_the_nation():
    key = (FilingKind.OTHER_TEMPORARY, Route.CROSS_PROVINCE)
    assert "济宁市" in JINING.evidence[key].citation
    assert "规程" in ZHANJIANG.evidence[key].citation
    retired = AREAS["110000"].person_classes[FilingKind.RETIRED_RESETTLED, EMPLOYEE]
    assert retired.value == {PersonClass.RETIRED}


TEXTS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in RULES.glob("*.yaml")
}


def naive(area: str, key: str, combination: tuple[Any, ...]) -> dict[str, Any]:
    """The one row that speaks of a combination, read as a person reads it: the area's, else the
    nation's."""
    groups = {
        "long_term": {spelt(kind) for kind in LONG_TERM},
        "national": {"national_app", "mini_program", "state_council_client"},
    }
    asked = dict(
        zip((one.name for one in KEYS[key].dimensions), map(spelt, combination), strict=True)
    )
    for name in (f"{area}.yaml", NATIONAL):
        data = TEXTS[name]
        found = [
            {**row, "document": data["sources"][row["source"]]["document"]}
            for row in data.get(key, ())
            if all(
                asked[dimension] in {w for word in words for w in groups.get(word, {word})}
                for dimension, words in row.get("when", {}).items()
            )
        ]
        if found:
            (row,) = found
            return row
    raise AssertionError((area, key, combination))


CELLS = [
    (area, key, combination)
    for area, rules in AREAS.items()
    for key, table in tables(rules).items()
    for combination in table
]


@settings(deadline=None)
@given(st.sampled_from(CELLS))
def test_the_table_holds_what_the_rows_say(cell):
    area, key, combination = cell
    row, stated = naive(*cell), tables(AREAS[area])[key][combination]
    assert stated.citation == f"{row['document']} {row.get('clause', '')}".strip()
    assert stated.value == KEYS[key].read(row["value"], combination)


def test_every_combination_has_a_value():
    for rules in AREAS.values():
        for name, table in tables(rules).items():
            axes = [one.members for one in KEYS[name].dimensions]
            assert set(table) == set(product(*axes))
    assert len(CELLS) == len(AREAS) * 190


# --- broken files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The nation and 湛江."""
    for name in (NATIONAL, "440800.yaml"):
        shutil.copy(RULES / name, tmp_path)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def told(folder: Path) -> list[str]:
    """The problems without their lines."""
    found = examine_area_rules(folder).problems
    assert all(one.line >= 1 for one in found)
    return [f"{one.file}: {one.path}: {one.text}" for one in found]


LOCK = "  - {when: {kind: [long_term]}, value: {months: 6, only_after_cost: false}, source: notice}"
ANY = "  - {value: any, source: notice}"
CHANNELS = "value: [national, window], source"
SILENT = "  silent: {document: 示例：所依据的文件没有规定, provenance: illustrative}"
CONTACT = "telephone: 0759-00000000（示例）, "
KNOWN = ", ".join(KEYS)
KINDS = ", ".join(spelt(kind) for kind in FilingKind)


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        (
            "name: 湛江市",
            "name: 湛江市\nname: 湛江",
            ["name: stands twice, in line 2 and line 3: keep one"],
        ),
        ("name: 湛江市", "name: 湛江市\ncolour: red", [f"colour: is none of {KNOWN}"]),
        ("name: 湛江市\n", "", ["name: must be given, as text in quotes"]),
        ('area: "440800"', "area: 440800", ["area: must be given, as text in quotes"]),
        ('area: "440800"', 'area: "440100"', ["area: must be the name of the file, 440800"]),
        (
            "name: 湛江市",
            "name: 湛江市\nlinked_places:\n  - {value: [], source: notice}",
            ["linked_places: is the same everywhere: it stands in national.yaml only"],
        ),
        (
            "kind: [long_term]}, value: no_end",
            "kind: [teleport]}, value: no_end",
            [f"validity_months[0].when.kind: teleport is none of {KINDS}, long_term"],
        ),
        (
            "kind: [long_term]}, value: no_end",
            "kind: [emergency]}, value: no_end",
            ["validity_months[0].when.kind: emergency can never apply here"],
        ),
        (
            "kind: [long_term]}, value: no_end",
            "kind: []}, value: no_end",
            [
                "validity_months[0].when.kind: must be a list of values; "
                "leave the dimension away for all"
            ],
        ),
        (
            "kind: [long_term]}, value: no_end",
            "kind: [3]}, value: no_end",
            ["validity_months[0].when.kind: 3 is no word"],
        ),
        (
            "kind: [long_term]}, value: no_end",
            "channel: [window]}, value: no_end",
            ["validity_months[0].when.channel: this key depends on kind, route"],
        ),
        (
            "when: {kind: [long_term]}, value: no_end",
            "when: always, value: no_end",
            ["validity_months[0].when: must be a map of dimension: [values]"],
        ),
        (
            "kind: [long_term]}, value: no_end",
            "kind: [long_term], route: [local]}, value: no_end",
            ["validity_months[0].when.route: local can never apply here"],
        ),
        (
            "value: 6, source",
            'value: "6", source',
            ["validity_months[1].value: must be a whole number from 1 or no_end"],
        ),
        (
            "value: 6, source",
            "value: true, source",
            ["validity_months[1].value: must be a whole number from 1 or no_end"],
        ),
        (
            "value: 6, source",
            "source",
            ["validity_months[1]: has no value"],
        ),
        (
            "value: 6, source",
            "value: 6, colour: red, source",
            ["validity_months[1].colour: is none of when, value, source, clause"],
        ),
        (
            "value: 6, source: notice",
            "value: 6, source: rumour",
            ["validity_months[1].source: must be one of the sources of this file: notice, silent"],
        ),
        (
            "value: 6, source: notice",
            "value: 6, clause: 3, source: notice",
            ["validity_months[1].clause: must be text: put it in quotes"],
        ),
        (
            ANY,
            f"{ANY}\n  - {{when: {{kind: [referral], route: [in_province]}}, value: 3, "
            "source: notice}",
            ["back_dating_days[1]: two rows for kind=referral, route=in_province: see line 15"],
        ),
        (ANY, "  - any", ["back_dating_days[0]: a row is a map of when, value, source, clause"]),
        (
            "  - {value: any, source: notice}\n",
            "  value: any\n",
            ["back_dating_days: must be a list of rows"],
        ),
        (
            "kind: [referral, other_temporary]}, value: 6",
            "kind: [referral]}, value: 6",
            [
                "validity_months: no row for kind=other_temporary, route=in_province",
                "validity_months: no row for kind=other_temporary, route=cross_province",
            ],
        ),
        (
            SILENT,
            f"{SILENT}\n  gossip: {{document: 听说, date: '2024', provenance: secondary}}",
            ["sources.gossip: no row rests on this source"],
        ),
        (
            "provenance: official}",
            "provenance: hearsay}",
            ["sources.notice.provenance: hearsay is none of official, secondary, illustrative"],
        ),
        (
            "document: 示例：所依据的文件没有规定",
            "document: 所依据的文件没有规定",
            ["sources.silent.document: begins with 示例 in a sample, and only there"],
        ),
        (
            ', date: "2023-02-03"',
            "",
            ["sources.notice: a document has a date, a sample has none"],
        ),
        (
            "document: 湛医保〔2023〕11号, ",
            "",
            ["sources.notice: needs document, provenance and, unless it is a sample, date"],
        ),
        (
            'date: "2023-02-03"',
            'date: "2023-02-03", page: 3',
            ["sources.notice.page: is none of document, date, provenance"],
        ),
        (
            CHANNELS,
            "value: [national, hospital_upload], source",
            [
                "channels[0].value: hospital_upload can never apply: "
                "institutions upload referrals only"
            ],
        ),
        (CHANNELS, "value: [], source", ["channels[0].value: must name a channel"]),
        (CHANNELS, "value: window, source", ["channels[0].value: must be a list"]),
        (
            LOCK,
            LOCK.replace("months: 6, only_after_cost: false", "months: 0, only_after_cost: true"),
            ["lock[0].value: only_after_cost can never apply: months is 0"],
        ),
        (
            LOCK,
            LOCK.replace("months: 6, ", ""),
            ["lock[0].value: needs exactly the keys months, only_after_cost: look at months"],
        ),
        (
            LOCK,
            LOCK.replace("only_after_cost: false", 'only_after_cost: "no"'),
            ["lock[0].value: only_after_cost: no is of the wrong type"],
        ),
        (
            "any_of: [], promise: false}",
            "any_of: [], promise: true}",
            ["evidence[0].value: promise can never apply: any_of is empty"],
        ),
        (
            "any_of: [], promise: false}",
            "any_of: [commitment], promise: false}",
            [
                "evidence[0].value: commitment stands for any_of by `promise: true`, "
                "not as one of them"
            ],
        ),
        (
            "{routes: [], places: []",
            "{routes: [], places: [12]",
            ["exemption[0].value: 12 is no area code: six digits in quotes"],
        ),
        ("{routes: [], ", "{routes: [local], ", ["exemption[0].value: local can never apply here"]),
        (
            "code: H44080200001",
            "code: H44080300001",
            ["referrals[0].value: H44080300001 is named twice"],
        ),
        ("code: H44080200001", "code: 医院", ["referrals[0].value: 医院 is no institution code"]),
        (
            "promised_months: while_open",
            "promised_months: soon",
            [
                "back_home[0].value: must be a whole number from 1 or never or while_open",
            ],
        ),
        (
            CONTACT,
            "",
            ["contact[0].value: needs exactly the keys telephone, office: look at telephone"],
        ),
        (
            "value: 自费结算的，凭发票、费用清单和病历到湛江市医保经办机构手工报销。",
            "value: 12393",
            ["manual_claim[0].value: must be a sentence"],
        ),
    ],
)
def test_a_broken_file_is_named_with_its_fault(folder: Path, old: str, new: str, faults: list[str]):
    change(folder / "440800.yaml", old, new)
    assert told(folder) == [f"440800.yaml: {fault}" for fault in faults]
    with pytest.raises(RulesError, match=r"440800\.yaml:\d+: ") as raised:
        load_area_rules(folder)
    assert len(str(raised.value).splitlines()) == len(faults)


def test_the_line_is_that_of_the_fault(folder: Path):
    path = folder / "440800.yaml"
    change(path, "months: 6, only", "months: -1, only")
    (line,) = (
        number
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "months: -1" in text
    )
    with pytest.raises(RulesError) as raised:
        load_area_rules(folder)
    assert str(raised.value) == (
        f"440800.yaml:{line}: lock[0].value: must be a whole number from 0"
    )


def test_all_faults_are_listed_at_once(folder: Path):
    change(folder / "440800.yaml", "value: any", "value: some")
    change(folder / "440800.yaml", "name: 湛江市", "colour: red")
    change(folder / NATIONAL, "value: 2, source", "value: two, source")
    (folder / "370100.yaml").write_text("name: [", encoding="utf-8")
    (folder / "370800.yaml").write_bytes(b"\xff")
    assert [(one.file, one.path) for one in examine_area_rules(folder).problems] == [
        ("370100.yaml", ""),
        ("370800.yaml", ""),
        ("440800.yaml", "name"),
        ("440800.yaml", "colour"),
        ("440800.yaml", "back_dating_days[0].value"),
        (NATIONAL, "handling_days[0].value"),
    ]


def test_a_person_class_belongs_to_its_insurance(folder: Path):
    rows = (
        "person_classes:\n"
        "  - {when: {kind: [posted_worker], insurance: [resident]}, value: [employed], "
        "source: notice}\n"
    )
    change(folder / "440800.yaml", "lock:\n", f"{rows}lock:\n")
    assert told(folder) == [
        "440800.yaml: person_classes[0].value: employed can never apply to resident"
    ]


def test_an_area_without_rules_is_all_gaps(folder: Path):
    (folder / "440800.yaml").write_text(
        'area: "440800"\nname: 湛江市\nsources: {}\n', encoding="utf-8"
    )
    found = told(folder)
    assert set(found) >= {
        "440800.yaml: referrals: no row for route=in_province",
        "440800.yaml: contact: no row for kind=referral, route=cross_province",
    }
    assert all(": no row for " in one for one in found)


def test_a_folder_without_the_national_file_is_no_folder_of_rules(tmp_path: Path):
    with pytest.raises(RulesError) as raised:
        load_area_rules(tmp_path)
    assert str(raised.value) == f"{NATIONAL}:0: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        (
            "value: 6, source",
            "value: 3, source",
            "validity_months: 3 months for referral; 医保发〔2022〕22号 二: "
            "in principle at least 6 months",
        ),
        (
            "value: no_end, source",
            "value: 12, source",
            "validity_months: 12 months for retired_resettled; 医保发〔2022〕22号 二: "
            "long-term filings hold until they are changed",
        ),
        (
            "months: 6, only",
            "months: 12, only",
            "lock: 12 months for posted_worker; 医保发〔2022〕22号 二（三）: "
            "in principle at most 6 months",
        ),
        (
            "value: 0, source: notice",
            "value: 5, source: notice",
            "handling_days: 5 days for other_temporary; 跨省异地就医直接结算经办规程 第九条: "
            "at most 2 working days online",
        ),
    ],
)
def test_what_leaves_a_national_bound_is_a_warning(folder: Path, old, new, warning):
    """S0-10, S0-11, S0-36; 规程 第九条."""
    change(folder / "440800.yaml", old, new)
    found: Examined = examine_area_rules(folder)
    assert {one.severity for one in found.problems} == {"warning"}
    assert f"440800.yaml: {warning}" in told(folder)
    assert set(load_area_rules(folder)) == {"440800"}


def test_the_files_that_come_with_the_suite_leave_no_bound():
    assert examine_area_rules().problems == ()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from(["any", "national", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["months", "when", "value", "kind"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*KEYS, "area", "name", "sources", "x"]), JUNK, max_size=4))
def test_no_text_breaks_the_reader(junk):
    with TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(RULES / NATIONAL, folder)
        (folder / "440800.yaml").write_text(yaml.safe_dump(junk), encoding="utf-8")
        found = examine_area_rules(folder)
    assert found.rules == {}
    assert found.problems


def test_the_command_checks_a_folder(folder: Path):
    sound = run_yidi(folder, "filing", "rules", "check", str(folder))
    assert sound.returncode == 0, sound.stderr
    founded = [one.provenance for table in tables(ZHANJIANG).values() for one in table.values()]
    assert sound.stdout.splitlines() == [
        "440800 湛江市: " + ", ".join(f"{founded.count(kind)} {kind.value}" for kind in Provenance)
    ]
    change(folder / "440800.yaml", "value: any", "value: some")
    broken = run_yidi(folder, "filing", "rules", "check", str(folder), "--json")
    assert broken.returncode == 1
    facts = json.loads(broken.stdout)
    assert (facts["areas"], facts["errors"]) == ({}, 1)
    assert facts["problems"][0]["path"] == "back_dating_days[0].value"
    plain = run_yidi(folder, "filing", "rules", "check", str(folder))
    assert plain.stdout.startswith(f"{folder / '440800.yaml'}:")
    assert plain.stderr == "0 areas: 1 errors, 0 warnings\n"
    assert run_yidi(folder, "filing", "rules", "check", "nowhere").returncode != 0


def test_the_guide_is_true(folder: Path):
    """docs/filing.md: its file is sound, and it knows every key, fact and value."""
    guide = GUIDE.read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml rules\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (folder / "999900.yaml").write_text(example, encoding="utf-8")
    assert examine_area_rules(folder).problems == ()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", guide, re.MULTILINE))
    assert list(rows) == list(KEYS)
    for name, key in KEYS.items():
        facts = re.sub(r" \(.*?\)", "", rows[name])
        assert facts == (", ".join(one.name for one in key.dimensions) or "–")
    for one in (KIND, ROUTE, INSURANCE, CARE, CHANNEL):
        (values,) = re.findall(rf"^\| {one.name} \| (.*) \|$", guide, re.MULTILINE)
        words = re.findall(r"`(\w+)`", values)
        assert sorted(words) == sorted([*map(spelt, one.members), *one.groups])
