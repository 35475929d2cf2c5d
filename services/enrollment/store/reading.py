"""How the rows under a relation are read: as JSON in a column, decoded into domain values."""

from __future__ import annotations

import msgspec

from services.enrollment.domain.qualification import Qualification
from services.enrollment.domain.status import Spell

QUALIFICATION = """json_build_object(
    'disease', chronic.disease_code, 'start', chronic.start_date, 'end', chronic.end_date,
    'granted_area', chronic.granted_area, 'chosen_institutions', chronic.chosen_institutions)"""
"""One row `chronic`."""

SPELLS = """(
    SELECT COALESCE(json_agg(json_build_object(
        'start', spell.start_date, 'status', spell.status, 'to_area', spell.to_area
    ) ORDER BY spell.start_date), '[]')
    FROM enrollment.status AS spell
    WHERE spell.person_id = relation.person_id AND spell.area = relation.area
      AND spell.insurance = relation.insurance)"""
"""The statuses of a row `relation`, oldest first."""

QUALIFICATIONS = f"""(
    SELECT COALESCE(json_agg({QUALIFICATION} ORDER BY chronic.disease_code, chronic.start_date),
                    '[]')
    FROM enrollment.chronic_qualification AS chronic
    WHERE chronic.person_id = relation.person_id AND chronic.area = relation.area
      AND chronic.insurance = relation.insurance)"""
"""The qualifications of a row `relation`."""

spells = msgspec.json.Decoder(tuple[Spell, ...]).decode
qualifications = msgspec.json.Decoder(tuple[Qualification, ...]).decode
located_qualifications = msgspec.json.Decoder(
    tuple[tuple[tuple[str, int], Qualification], ...]
).decode
"""Of arrays [[area, insurance type], qualification]."""
