"""Tables of enrollment and every statement on them."""

from pathlib import Path

from infra.runtime.schema import Schema

SCHEMA = Schema("enrollment", Path(__file__).parent.parent / "migrations")
