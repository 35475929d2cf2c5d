"""The servicers of settlement: the care place's journal and the insured place's decisions."""

from services.settlement.service.care import CareServicer
from services.settlement.service.insured import InsuredServicer

__all__ = ["CareServicer", "InsuredServicer"]
