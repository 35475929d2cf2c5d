"""What recovery and undo need: when to ask next, who undoes whom, what was posted from outside."""

from alembic import op

from infra.runtime.migrate import grant

revision = "settlement_0002"
down_revision = "settlement_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE settlement.care_journal
            ADD COLUMN attempts integer NOT NULL DEFAULT 0,
            ADD COLUMN next_attempt_at timestamptz,
            ADD COLUMN undone_by uuid,
            ADD COLUMN doubt bytea
        """
    )
    op.execute(
        "CREATE INDEX care_journal_doubt ON settlement.care_journal "
        "(insured_site, next_attempt_at) WHERE state = 'IN_DOUBT'"
    )
    op.execute(
        "CREATE INDEX care_journal_cancel ON settlement.care_journal (next_attempt_at) "
        "WHERE cancel_requested AND state = 'COMPLETED' AND next_attempt_at IS NOT NULL"
    )
    op.execute(
        "CREATE INDEX care_journal_undoes ON settlement.care_journal (undoes) "
        "WHERE undoes IS NOT NULL"
    )
    op.execute(
        """
        CREATE TABLE settlement.undo (
            original_id uuid PRIMARY KEY,
            undo_id uuid NOT NULL
        ) PARTITION BY RANGE (original_id)
        """
    )
    grant("undo", "SELECT, INSERT")
    op.execute(
        """
        CREATE TABLE settlement.external (
            posting_id uuid PRIMARY KEY,
            insured_area text NOT NULL,
            insurance smallint NOT NULL,
            person_id uuid NOT NULL,
            source text NOT NULL,
            posted_at timestamptz NOT NULL,
            body_digest bytea NOT NULL,
            balances jsonb NOT NULL
        )
        """
    )
    grant("external", "SELECT, INSERT")


def downgrade() -> None:
    op.execute("DROP TABLE settlement.external")
    op.execute("DROP TABLE settlement.undo")
    op.execute("DROP INDEX settlement.care_journal_undoes")
    op.execute("DROP INDEX settlement.care_journal_cancel")
    op.execute("DROP INDEX settlement.care_journal_doubt")
    op.execute(
        "ALTER TABLE settlement.care_journal DROP COLUMN doubt, DROP COLUMN undone_by, "
        "DROP COLUMN next_attempt_at, DROP COLUMN attempts"
    )
