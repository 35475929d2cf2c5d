"""The servicers of settlement: the care place's journal and what it owes afterwards, the insured
place's decisions."""

from services.settlement.service.audit import AuditServicer
from services.settlement.service.care import CareServicer
from services.settlement.service.insured import InsuredServicer

__all__ = ["AuditServicer", "CareServicer", "InsuredServicer"]
