"""What the care place owes after a settlement: the upload of a stay's detail, and audit cases.

Settlements of before owe nothing that is known here: an auditor may still pick them.
"""

from alembic import op

from infra.runtime.migrate import grant

revision = "settlement_0006"
down_revision = "settlement_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE settlement.care_journal ADD COLUMN duties smallint NOT NULL DEFAULT 0")
    op.execute(
        "CREATE INDEX care_journal_duties ON settlement.care_journal (settlement_id) "
        "WHERE duties <> 0 AND state = 'COMPLETED'"
    )
    op.execute(
        """
        CREATE TABLE settlement.detail_upload (
            settlement_id uuid PRIMARY KEY,
            due_at timestamptz NOT NULL,
            attempts integer NOT NULL DEFAULT 0,
            next_attempt_at timestamptz NOT NULL,
            cause text NOT NULL DEFAULT '',
            alarmed_at timestamptz,
            uploaded_at timestamptz
        )
        """
    )
    op.execute(
        "CREATE INDEX detail_upload_next ON settlement.detail_upload "
        "(next_attempt_at, settlement_id) WHERE uploaded_at IS NULL"
    )
    op.execute(
        "CREATE INDEX detail_upload_waiting ON settlement.detail_upload (settlement_id) "
        "WHERE uploaded_at IS NULL"
    )
    op.execute(
        "CREATE INDEX detail_upload_late ON settlement.detail_upload (due_at) "
        "WHERE uploaded_at IS NULL AND alarmed_at IS NULL"
    )
    grant("detail_upload", "SELECT, INSERT, UPDATE")
    op.execute(
        """
        CREATE TABLE settlement.audit_case (
            case_id uuid PRIMARY KEY,
            settlement_id uuid NOT NULL,
            kind text NOT NULL CHECK (kind IN ('INJURY_DECLARATION', 'FINDING', 'PICKED')),
            state text NOT NULL CHECK (state IN ('OPEN', 'CONFIRMED', 'DEDUCTED')),
            deducted_fen bigint NOT NULL DEFAULT 0,
            reason text NOT NULL DEFAULT '',
            decided_by text NOT NULL DEFAULT '',
            decided_at timestamptz,
            UNIQUE (settlement_id, kind),
            CHECK ((state = 'OPEN') = (decided_at IS NULL)),
            CHECK (deducted_fen >= 0 AND (state = 'DEDUCTED') = (deducted_fen > 0))
        )
        """
    )
    op.execute(
        "CREATE INDEX audit_case_state ON settlement.audit_case (state, settlement_id, kind)"
    )
    grant("audit_case", "SELECT, INSERT, UPDATE")
    op.execute(
        """
        CREATE TABLE settlement.audit_request (
            caller text NOT NULL,
            method text NOT NULL,
            request_id text NOT NULL,
            body_digest bytea NOT NULL,
            case_id uuid NOT NULL,
            operator text NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (caller, method, request_id)
        )
        """
    )
    grant("audit_request", "SELECT, INSERT")


def downgrade() -> None:
    for table in ("audit_request", "audit_case", "detail_upload"):
        op.execute(f"DROP TABLE settlement.{table}")
    op.execute("DROP INDEX settlement.care_journal_duties")
    op.execute("ALTER TABLE settlement.care_journal DROP COLUMN duties")
