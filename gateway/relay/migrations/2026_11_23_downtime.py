"""Announced downtimes, once per operator and request id, never changed."""

from alembic import op

from infra.runtime.migrate import grant

revision = "relay_0002"
down_revision = "relay_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE relay.downtime (
            announcer text NOT NULL,
            request_id text NOT NULL,
            site text NOT NULL,
            area text NOT NULL,
            start_at timestamptz NOT NULL,
            end_at timestamptz NOT NULL,
            notice text NOT NULL,
            announced_at timestamptz NOT NULL,
            PRIMARY KEY (announcer, request_id),
            CHECK (start_at < end_at)
        )
        """
    )
    op.execute("CREATE INDEX downtime_end ON relay.downtime (end_at)")
    grant("downtime", "SELECT, INSERT")
    op.execute(
        """
        CREATE TABLE relay.audit (
            audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL,
            actor text NOT NULL,
            action text NOT NULL,
            subject text NOT NULL,
            digest bytea NOT NULL
        )
        """
    )
    grant("audit", "SELECT, INSERT")


def downgrade() -> None:
    op.execute("DROP TABLE relay.audit")
    op.execute("DROP TABLE relay.downtime")
