"""First tables of enrollment."""

from alembic import op

from infra.runtime.migrate import grant

revision = "enrollment_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Rows of people are added here and changed by later work (transfers, replaced cards), which
    # grants what it needs; until then the service can only add and read.
    op.execute("""
        CREATE TABLE enrollment.participant (
            person_id uuid PRIMARY KEY,
            id_index bytea NOT NULL UNIQUE CHECK (length(id_index) = 32),
            name_index bytea NOT NULL CHECK (length(name_index) = 32),
            name bytea NOT NULL,
            id_number bytea NOT NULL,
            birth_date date NOT NULL,
            registered_at timestamptz NOT NULL
        )""")
    op.execute("""
        COMMENT ON COLUMN enrollment.participant.name IS
        'AES-256-GCM, bound to person_id and column'""")
    op.execute("""
        CREATE TABLE enrollment.credential (
            type smallint NOT NULL,
            number_index bytea NOT NULL CHECK (length(number_index) = 32),
            person_id uuid NOT NULL REFERENCES enrollment.participant,
            registered_at timestamptz NOT NULL,
            PRIMARY KEY (type, number_index)
        )""")
    op.execute("""
        CREATE TABLE enrollment.insurance (
            person_id uuid NOT NULL REFERENCES enrollment.participant,
            area text NOT NULL CHECK (area ~ '^[0-9]{6}$'),
            insurance smallint NOT NULL,
            person_class smallint NOT NULL,
            active_from date NOT NULL,
            active_until date CHECK (active_until >= active_from),
            civil_servant boolean NOT NULL,
            PRIMARY KEY (person_id, area, insurance)
        )""")
    op.execute("""
        CREATE TABLE enrollment.chronic_qualification (
            person_id uuid NOT NULL,
            area text NOT NULL,
            insurance smallint NOT NULL,
            disease_code text NOT NULL,
            PRIMARY KEY (person_id, area, insurance, disease_code),
            FOREIGN KEY (person_id, area, insurance) REFERENCES enrollment.insurance
        )""")
    op.execute("""
        CREATE TABLE enrollment.account_link (
            person_id uuid NOT NULL,
            area text NOT NULL,
            insurance smallint NOT NULL,
            account_id uuid NOT NULL,
            PRIMARY KEY (person_id, area, insurance),
            FOREIGN KEY (person_id, area, insurance) REFERENCES enrollment.insurance
        )""")
    op.execute("""
        CREATE TABLE enrollment.audit (
            audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL,
            actor text NOT NULL,
            action text NOT NULL,
            subject text NOT NULL,
            digest bytea NOT NULL
        )""")
    for table in (
        "participant",
        "credential",
        "insurance",
        "chronic_qualification",
        "account_link",
        "audit",
    ):
        grant(table, "SELECT, INSERT")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
