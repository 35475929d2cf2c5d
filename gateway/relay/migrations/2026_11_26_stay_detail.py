"""The detail of stays as the care places uploaded it, once per settlement, never changed."""

from alembic import op

from infra.runtime.migrate import grant

revision = "relay_0003"
down_revision = "relay_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE relay.stay_detail (
            settlement_id uuid PRIMARY KEY,
            recorded_at timestamptz NOT NULL,
            detail bytea NOT NULL,
            detail_digest bytea NOT NULL
        ) PARTITION BY RANGE (settlement_id)
        """
    )
    grant("stay_detail", "SELECT, INSERT")


def downgrade() -> None:
    op.execute("DROP TABLE relay.stay_detail")
