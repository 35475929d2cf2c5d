"""The schema `settlement`: its tables and every statement on them, by side."""

from pathlib import Path

from infra.runtime.schema import Schema

SCHEMA = Schema(
    "settlement",
    Path(__file__).parent.parent / "migrations",
    partitioned=("care_journal", "decision", "undo"),
)
