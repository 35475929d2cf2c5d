"""The facts that filing decides on; the numbers of the enums are those of the contract."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import IntEnum


class Route(IntEnum):
    """The way between the two areas, from the directory."""

    LOCAL = 1
    IN_PROVINCE = 2
    CROSS_PROVINCE = 3


class InsuranceType(IntEnum):
    """险种类型."""

    EMPLOYEE = 1
    RESIDENT = 2


class PersonClass(IntEnum):
    """人员类别."""

    EMPLOYED = 1
    RETIRED = 2
    ADULT_RESIDENT = 3
    ELDERLY_RESIDENT = 4
    MINOR_OR_STUDENT = 5
    SELF_EMPLOYED = 6
    BANKRUPT_UNIT = 7


class CareType(IntEnum):
    """医疗类别."""

    OUTPATIENT = 1
    EMERGENCY = 2
    CHRONIC = 3
    INPATIENT = 4
    INJURY_INPATIENT = 5
    PHARMACY = 6


class InpatientType(IntEnum):
    """住院类型."""

    UNSPECIFIED = 0
    ORDINARY = 1
    EMERGENCY = 2
    TRANSFER = 3


class EmergencyReferral(IntEnum):
    """门诊急诊转诊标志."""

    UNSPECIFIED = 0
    EMERGENCY = 1
    REFERRAL = 2
    BOTH = 3


class Answer(IntEnum):
    """Yes or no; not given is not the same as no."""

    UNSPECIFIED = 0
    NO = 1
    YES = 2


class FilingKind(IntEnum):
    """The six filing kinds (医保发〔2022〕22号 二)."""

    RETIRED_RESETTLED = 1
    LONG_TERM_RESIDENT = 2
    POSTED_WORKER = 3
    REFERRAL = 4
    EMERGENCY = 5
    OTHER_TEMPORARY = 6

    @property
    def long_term(self) -> bool:
        """跨省异地长期居住 rather than 跨省临时外出就医."""
        return self <= FilingKind.POSTED_WORKER


class FilingChannel(IntEnum):
    """备案渠道."""

    NATIONAL_APP = 1
    MINI_PROGRAM = 2
    STATE_COUNCIL_CLIENT = 3
    LOCAL_ONLINE = 4
    WINDOW = 5
    PHONE = 6
    HOSPITAL_UPLOAD = 7


class FilingState(IntEnum):
    """Where a filing stands."""

    PENDING = 1
    ACCEPTED = 2
    REFUSED = 3
    ENDED = 4
    CANCELLED = 5


class Material(IntEnum):
    """备案材料."""

    FILING_FORM = 1
    HOUSEHOLD_REGISTER = 2
    ID_CARD_OF_PLACE = 3
    RESIDENCE_PERMIT = 4
    COMMUNITY_CERTIFICATE = 5
    POSTING_CERTIFICATE = 6
    EMPLOYER_CERTIFICATE = 7
    LABOUR_CONTRACT = 8
    EMPLOYER_APPLICATION = 9
    REFERRAL_CERTIFICATE = 10
    COMMITMENT = 11


class CommitmentState(IntEnum):
    """How a filing's material stands."""

    UNSPECIFIED = 0
    NOT_NEEDED = 1
    MATERIAL_COMPLETE = 2
    PROMISED = 3


class FilingBasis(IntEnum):
    """On what basis a visit is entitled."""

    FILED = 1
    DEEMED_EMERGENCY = 2
    EXEMPT = 3
    ACCOUNT_ONLY = 4
    LOCAL = 5
    NONE = 6


class BenefitClass(IntEnum):
    """At which level the insured area pays."""

    LOCAL = 1
    LONG_TERM_AT_PLACE = 2
    LONG_TERM_BACK_HOME = 3
    REFERRAL = 4
    REFERRAL_NAMED = 5
    EMERGENCY = 6
    OTHER_TEMPORARY = 7


@dataclass(frozen=True, slots=True)
class Filing:
    """One filing of one person; both days are included, no last day means no end.

    PENDING, REFUSED and CANCELLED cover nothing; ACCEPTED and ENDED cover their days.
    """

    filing_id: str
    insured_area: str
    insurance: InsuranceType
    kind: FilingKind
    channel: FilingChannel
    care_place: str
    start_date: date
    end_date: date | None
    filed_on: date
    referral_institution: str
    commitment: CommitmentState
    state: FilingState = FilingState.ACCEPTED
    version: int = 1
    disease_code: str = ""
    """Of a referral; empty covers any disease."""
    materials: frozenset[Material] = frozenset()
    due_date: date | None = None
    """While PENDING: last day for handling it."""
    replaces: str = ""
    """The filing whose change made this one."""
    changed_on: date | None = None
    """The day on which it was ended, cancelled or refused."""

    @property
    def counts(self) -> bool:
        """Whether it can cover a visit at all."""
        return self.state in (FilingState.ACCEPTED, FilingState.ENDED)


@dataclass(frozen=True, slots=True)
class Visit:
    """What decides the entitlement of a visit."""

    route: Route
    care_area: str
    care_site: str
    insured_area: str
    insurance: InsuranceType
    care_type: CareType
    start: date
    """Admission, or the day of the outpatient visit."""
    end: date
    """Discharge, or the same day."""
    inpatient_type: InpatientType
    emergency_referral: EmergencyReferral
    injury: Answer
    third_party: Answer
    use_account: bool
    disease_code: str = ""
    """Of an outpatient chronic disease, else empty."""
    diagnosis_codes: tuple[str, ...] = ()
    institution: str = ""
    """Where it is; empty when it is not known yet."""
    insured_since: date | None = None
    """First day of the present relation; what was filed before covers nothing."""
    contracted_institution: str = ""
    chosen_institutions: frozenset[str] = frozenset()

    @property
    def emergency(self) -> bool:
        """Whether the care place says 急诊 in any of the three ways (规程 第34条)."""
        return (
            self.care_type is CareType.EMERGENCY
            or self.inpatient_type is InpatientType.EMERGENCY
            or self.emergency_referral in (EmergencyReferral.EMERGENCY, EmergencyReferral.BOTH)
        )

    @property
    def third_party_liable(self) -> bool:
        """Whether it is an injury that somebody else has to pay for (规程 第35条)."""
        injured = self.injury is Answer.YES or self.care_type is CareType.INJURY_INPATIENT
        return injured and self.third_party is Answer.YES
