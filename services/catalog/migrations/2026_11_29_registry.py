"""Institutions with kind, agreement and diseases; mappings with days, reviewed before they count.

What was mapped before is approved since ever, and every institution medical unless its national
code begins with P. States are numbered as in the contract.
"""

from alembic import op

from infra.runtime.migrate import grant

revision = "catalog_04"
down_revision = "catalog_03"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE catalog.institution
            ADD kind smallint NOT NULL DEFAULT 1 CHECK (kind BETWEEN 1 AND 2),
            ADD disease_codes text[] NOT NULL DEFAULT '{}',
            ADD disease_starts date[] NOT NULL DEFAULT '{}',
            ADD disease_ends date[] NOT NULL DEFAULT '{}',
            ADD agreement_start date,
            ADD agreement_end date,
            ADD place text NOT NULL DEFAULT '',
            ADD actor text NOT NULL DEFAULT 'load',
            ADD operator text NOT NULL DEFAULT '',
            ADD CHECK (cardinality(disease_codes) = cardinality(disease_starts)
                       AND cardinality(disease_starts) = cardinality(disease_ends)),
            ADD CHECK (agreement_end >= agreement_start)""")
    op.execute("UPDATE catalog.institution SET kind = 2 WHERE code ~ '^P[0-9]{11}$'")
    op.execute("""
        ALTER TABLE catalog.institution_item
            ADD item_name text NOT NULL DEFAULT '',
            ADD list_type smallint NOT NULL DEFAULT 0 CHECK (list_type BETWEEN 0 AND 8),
            ADD first_day date,
            ADD last_day date,
            ADD CHECK (last_day >= first_day)""")
    op.execute("""
        CREATE TABLE catalog.mapping_state (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            mapping_id bigint NOT NULL REFERENCES catalog.institution_item,
            state smallint NOT NULL CHECK (state BETWEEN 1 AND 4),
            withdrawn_from date,
            reason text NOT NULL DEFAULT '',
            actor text NOT NULL,
            operator text NOT NULL DEFAULT '',
            at timestamptz NOT NULL,
            CHECK ((state = 4) = (withdrawn_from IS NOT NULL))
        )""")
    op.execute("CREATE INDEX ON catalog.mapping_state (mapping_id, id)")
    op.execute("""
        INSERT INTO catalog.mapping_state (mapping_id, state, actor, at)
        SELECT id, 2, 'load', recorded_at FROM catalog.institution_item ORDER BY id""")
    grant("mapping_state", "SELECT, INSERT")


def downgrade() -> None:
    """The former table knows only mappings that hold since ever: what else was said is lost."""
    op.execute("DROP TABLE catalog.mapping_state")
    op.execute("DELETE FROM catalog.institution_item WHERE first_day IS NOT NULL")
    op.execute("""
        ALTER TABLE catalog.institution_item
            DROP item_name, DROP list_type, DROP first_day, DROP last_day""")
    op.execute("""
        ALTER TABLE catalog.institution
            DROP kind, DROP disease_codes, DROP disease_starts, DROP disease_ends,
            DROP agreement_start, DROP agreement_end, DROP place, DROP actor, DROP operator""")
