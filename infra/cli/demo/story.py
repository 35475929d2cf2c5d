"""The visits of the demo: who they are, what is filed, what is charged. Plain data.

The bills are fixed and the people new in every run, so the amounts are the same each time. The
three sickbeds in 北京 carry one and the same bill: what differs is only on what basis it is paid.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from yidi.common.v1 import types_pb2


@dataclass(frozen=True, slots=True)
class Item:
    """A line of a bill: the institution's item code, price in fen, quantity."""

    code: str
    price_fen: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Patient:
    """A synthetic participant; the name is made in every run."""

    key: str
    site: str
    area: str
    county: str
    born: date
    person_class: types_pb2.PersonClass.ValueType


@dataclass(frozen=True, slots=True)
class Filing:
    """A filing; `days_before` the admission it is made, so 0 means on that day."""

    kind: types_pb2.FilingKind.ValueType
    channel: types_pb2.FilingChannel.ValueType
    care_place: str
    days_before: int = 0
    referral_institution: str = ""


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit; its days are counted back from today."""

    institution: str
    care_site: str
    care_area: str
    care_type: types_pb2.CareType.ValueType
    days: int
    bill: tuple[Item, ...]
    inpatient_type: types_pb2.InpatientType.ValueType = types_pb2.INPATIENT_TYPE_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Chapter:
    """One visit from filing to settlement."""

    case: str
    title: str
    english: str
    told: str
    patient: Patient
    visit: Visit
    filing: Filing | None = None
    guided: Filing | None = None
    """Nothing is filed when the patient leaves: the hospital looks, files this for the patient from
    the first day of the visit on (补办备案), and settles."""


def _items(*rows: tuple[str, int, int]) -> tuple[Item, ...]:
    return tuple(Item(code, price_fen, quantity) for code, price_fen, quantity in rows)


_STENT = _items(
    ("X007", 8000, 6),  # 三人间床位费, over its limit
    ("X005", 5000, 6),  # 住院诊察费
    ("X011", 2600, 6),  # 一级护理
    ("X006", 15000, 2),  # 急诊监护费
    ("X036", 420000, 1),  # 经皮冠状动脉支架置入术
    ("C001", 90000, 2),  # 冠脉药物洗脱支架, class B
    ("C002", 40000, 1),  # 冠脉球囊扩张导管
    ("C004", 60000, 1),  # 导引导丝
    ("X024", 18000, 1),  # 心脏彩色多普勒超声
    ("X032", 11000, 3),  # 肌钙蛋白测定
    ("Y011", 3850, 10),  # 依诺肝素钠注射液
    ("Y012", 300, 28),  # 硫酸氢氯吡格雷片
    ("Y026", 420, 28),  # 阿托伐他汀钙片
    ("C020", 26000, 1),  # 镇痛泵, not covered
)
_FOLLOW_UP = _items(
    ("X003", 8000, 1),  # 主任医师门诊诊察费
    ("X026", 19800, 1),  # 动态心电图
    ("X030", 7000, 1),  # 肝功能检查
    ("Y005", 4800, 2),  # 门冬胰岛素注射液, over its limit
    ("Y012", 300, 28),
    ("Y026", 420, 28),
    ("Y059", 12000, 1),  # 阿胶, not covered
)
_HIP = _items(
    ("X007", 5400, 9),
    ("X005", 4500, 9),
    ("X011", 2340, 9),
    ("X038", 468000, 1),  # 人工髋关节置换术
    ("X035", 81000, 1),  # 全身麻醉
    ("C005", 720000, 1),  # 人工髋关节假体, class B
    ("X018", 9600, 2),  # X线胸部正侧位摄影
    ("Y011", 3850, 9),
    ("Y032", 1250, 14),  # 注射用头孢呋辛钠
    ("C020", 26000, 1),
)
_CHECK_UP = _items(
    ("X002", 4500, 1),  # 普通门诊诊察费
    ("X019", 18000, 1),  # 胸部CT平扫
    ("X027", 2000, 1),  # 血常规
    ("X023", 16000, 1),  # 腹部彩色多普勒超声
    ("X034", 32000, 1),  # 电子胃镜检查
)

_INPATIENT = types_pb2.CARE_TYPE_INPATIENT
_OUTPATIENT = types_pb2.CARE_TYPE_OUTPATIENT
_PLANNED = types_pb2.INPATIENT_TYPE_ORDINARY
_APP = types_pb2.FILING_CHANNEL_NATIONAL_APP
_UPLOAD = types_pb2.FILING_CHANNEL_HOSPITAL_UPLOAD
_BEIJING = ("H11010100001", "110000", "110000")
_GUANGZHOU = ("H44010000001", "440000", "440100")


def _patient(key: str, area: str, county: str, born: date, *, retired: bool = False) -> Patient:
    person_class = types_pb2.PERSON_CLASS_RETIRED if retired else types_pb2.PERSON_CLASS_EMPLOYED
    return Patient(key, f"{area[:2]}0000", area, county, born, person_class)


_RETIRED = _patient("retired", "440800", "440802", date(1955, 3, 1), retired=True)
_IN_BEIJING = Visit(*_BEIJING, _INPATIENT, 6, _STENT, _PLANNED)
_IN_GUANGZHOU = Visit(*_GUANGZHOU, _INPATIENT, 9, _HIP, _PLANNED)

STORY = (
    Chapter(
        case="long_term_resident",
        title="异地长期居住：退休人员在北京住院",
        english="retired, long-term in Beijing, inpatient",
        told="湛江退休职工随子女长期居住北京，早已办理异地安置备案，因冠心病住院放置支架。",
        patient=_RETIRED,
        visit=_IN_BEIJING,
        filing=Filing(types_pb2.FILING_KIND_RETIRED_RESETTLED, _APP, "110000", days_before=60),
    ),
    Chapter(
        case="long_term_outpatient",
        title="异地长期居住：同一人出院后门诊复查",
        english="the same person, outpatient follow-up",
        told="同一备案长期有效，门诊按就医地目录逐项分割后由参保地计算。",
        patient=_RETIRED,
        visit=Visit(*_BEIJING, _OUTPATIENT, 0, _FOLLOW_UP),
    ),
    Chapter(
        case="referral_named",
        title="转诊：经湛江指定医院转往北京",
        english="referral by a named hospital",
        told="湛江在职职工由市里指定的九家医院之一转往北京，按本市同级别机构标准，待遇不降。",
        patient=_patient("referral_named", "440800", "440803", date(1981, 5, 20)),
        visit=_IN_BEIJING,
        filing=Filing(
            types_pb2.FILING_KIND_REFERRAL,
            _UPLOAD,
            "110000",
            2,
            referral_institution="H44080300001",
        ),
    ),
    Chapter(
        case="referral",
        title="转诊：经其他医院转往北京",
        english="referral by another hospital",
        told="同样的病、同样的账单，转出医院不在九家之列，支付比例降低10个百分点。",
        patient=_patient("referral", "440800", "440804", date(1979, 11, 8)),
        visit=_IN_BEIJING,
        filing=Filing(
            types_pb2.FILING_KIND_REFERRAL,
            _UPLOAD,
            "110000",
            2,
            referral_institution="H44080000001",
        ),
    ),
    Chapter(
        case="emergency_without_filing",
        title="急诊：出差途中在北京急诊住院，未备案",
        english="emergency admission without filing",
        told="没有备案；医院上传住院类型“急诊”，参保地视同已备案。",
        patient=_patient("emergency", "440800", "440811", date(1986, 7, 30)),
        visit=Visit(*_BEIJING, _INPATIENT, 6, _STENT, types_pb2.INPATIENT_TYPE_EMERGENCY),
    ),
    Chapter(
        case="planned_without_filing",
        title="计划住院未备案：医院引导补办后结算",
        english="planned, not filed: guided and filed by the hospital, settled",
        told="自行到北京住院，出院时医院查到没有备案，按参保地的指引当场为患者补办。",
        patient=_patient("planned", "440800", "440823", date(1990, 2, 14)),
        visit=_IN_BEIJING,
        guided=Filing(types_pb2.FILING_KIND_OTHER_TEMPORARY, _APP, "110000"),
    ),
    Chapter(
        case="in_province",
        title="省内异地：湛江参保人在广州住院",
        english="inside the province, no national hop",
        told="省内跨市按湛江同一规定备案转诊；结算不出省，不经国家平台。",
        patient=_patient("in_province", "440800", "440881", date(1968, 9, 12)),
        visit=_IN_GUANGZHOU,
        filing=Filing(
            types_pb2.FILING_KIND_REFERRAL,
            _UPLOAD,
            "440100",
            3,
            referral_institution="H44080000001",
        ),
    ),
    Chapter(
        case="treated_in_guangdong",
        title="到广东就医：济宁职工在广州住院",
        english="insured in Jining, treated in Guangzhou",
        told="济宁在职职工临时外出就医：先行自付10%，再按本地起付线和比例计算。",
        patient=_patient("jining", "370800", "370811", date(1972, 4, 3)),
        visit=_IN_GUANGZHOU,
        filing=Filing(types_pb2.FILING_KIND_OTHER_TEMPORARY, _APP, "440100", days_before=1),
    ),
    Chapter(
        case="local",
        title="统筹区内：济宁职工在本市门诊",
        english="at home, the same path without leaving the site",
        told="同一条路径也用于本地就医：不需备案，不经国家平台。",
        patient=_patient("local", "370800", "370826", date(1983, 12, 6)),
        visit=Visit("H37080000001", "370000", "370800", _OUTPATIENT, 0, _CHECK_UP),
    ),
)


def visit_days(today: date, days: int) -> tuple[date, date]:
    """First and last day of a visit of `days` nights that ends today, ISO order.

    A visit never crosses the turn of the year, which some areas settle in two parts: in the first
    days of January it is the last one of December.
    """
    last = today
    first = date.fromordinal(last.toordinal() - days)
    if first.year != last.year:
        last = date(first.year, 12, 31)
        first = date.fromordinal(last.toordinal() - days)
    return first, last
