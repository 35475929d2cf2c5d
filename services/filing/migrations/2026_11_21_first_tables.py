"""First tables of filing."""

from alembic import op

from infra.runtime.migrate import grant

revision = "filing_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE filing.filing (
            filing_id uuid PRIMARY KEY,
            caller text NOT NULL,
            request_id uuid NOT NULL,
            body_digest bytea NOT NULL CHECK (length(body_digest) = 32),
            person_id uuid NOT NULL,
            insured_area text NOT NULL CHECK (insured_area ~ '^[0-9]{6}$'),
            insurance smallint NOT NULL,
            kind smallint NOT NULL,
            channel smallint NOT NULL,
            care_place text NOT NULL CHECK (care_place ~ '^[0-9]{6}$'),
            start_date date NOT NULL,
            end_date date CHECK (end_date >= start_date),
            filed_on date NOT NULL,
            referral_institution text NOT NULL,
            commitment smallint NOT NULL,
            recorded_at timestamptz NOT NULL,
            UNIQUE (request_id, caller)
        )""")
    op.execute("CREATE INDEX filing_person ON filing.filing (person_id)")
    op.execute("""
        CREATE TABLE filing.audit (
            audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL,
            actor text NOT NULL,
            action text NOT NULL,
            subject text NOT NULL,
            digest bytea NOT NULL
        )""")
    for table in ("filing", "audit"):
        grant(table, "SELECT, INSERT")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
