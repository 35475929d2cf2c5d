"""In-scope cost that counts towards yearly brackets and fee caps is accumulated, too."""

from alembic import op

revision = "settlement_0004"
down_revision = "settlement_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE settlement.accumulator ADD COLUMN fee_used_fen bigint NOT NULL DEFAULT 0"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE settlement.accumulator DROP COLUMN fee_used_fen")
