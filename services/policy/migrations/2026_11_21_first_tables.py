"""Published documents and the audit of publishing."""

from alembic import op

from infra.runtime.migrate import grant

revision = "policy_1"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE policy.document (
            publication bigint PRIMARY KEY CHECK (publication > 0),
            area text NOT NULL,
            insurance text NOT NULL,
            version text NOT NULL,
            effective_from date NOT NULL,
            effective_to date NOT NULL CHECK (effective_to >= effective_from),
            content text NOT NULL,
            hash bytea NOT NULL CHECK (octet_length(hash) = 32),
            published_at timestamptz NOT NULL,
            activated_at timestamptz NOT NULL CHECK (activated_at >= published_at),
            UNIQUE (area, insurance, version)
        )
    """)
    op.execute("""
        CREATE TABLE policy.audit (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL,
            actor text NOT NULL,
            action text NOT NULL,
            subject text NOT NULL,
            digest bytea NOT NULL
        )
    """)
    grant("document", "SELECT, INSERT")
    grant("audit", "SELECT, INSERT")


def downgrade() -> None:
    op.execute("DROP TABLE policy.audit, policy.document")
