"""A committed settlement away from home knows its filing: cost under one locks it in some areas.

Older rows stay without: what was paid before is not counted.
"""

from alembic import op

revision = "settlement_0005"
down_revision = "settlement_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE settlement.decision ADD COLUMN filing_id uuid")
    op.execute(
        "CREATE INDEX decision_filing ON settlement.decision (filing_id) "
        "WHERE filing_id IS NOT NULL"
    )


def downgrade() -> None:
    op.execute("DROP INDEX settlement.decision_filing")
    op.execute("ALTER TABLE settlement.decision DROP COLUMN filing_id")
