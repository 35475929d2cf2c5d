"""Days of care places whose settlements another journal is known to hold: never asked again."""

from alembic import op

from infra.runtime.migrate import grant

revision = "settlement_0003"
down_revision = "settlement_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE settlement.compared (
            business_day date NOT NULL,
            care_site text NOT NULL,
            compared_at timestamptz NOT NULL,
            PRIMARY KEY (business_day, care_site)
        )
        """
    )
    grant("compared", "SELECT, INSERT")


def downgrade() -> None:
    op.execute("DROP TABLE settlement.compared")
