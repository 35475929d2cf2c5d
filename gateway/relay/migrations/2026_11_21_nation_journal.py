"""The nation's journal: one row per committed settlement, header bytes and what is pulled out."""

from alembic import op

from infra.runtime.migrate import grant

revision = "relay_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE relay.outcome (
            settlement_id uuid PRIMARY KEY,
            kind smallint NOT NULL,
            recorded_at timestamptz NOT NULL,
            outcome_header bytea NOT NULL,
            outcome_digest bytea NOT NULL,
            business_day date NOT NULL,
            care_site text NOT NULL,
            insured_site text NOT NULL,
            total_fen bigint NOT NULL,
            full_self_pay_fen bigint NOT NULL,
            over_limit_fen bigint NOT NULL,
            first_self_pay_fen bigint NOT NULL,
            in_scope_fen bigint NOT NULL,
            remote_first_pay_fen bigint NOT NULL,
            deductible_fen bigint NOT NULL,
            ratio_self_pay_fen bigint NOT NULL,
            over_cap_fen bigint NOT NULL,
            fund_total_fen bigint NOT NULL,
            account_fen bigint NOT NULL,
            cash_fen bigint NOT NULL,
            hospital_fen bigint NOT NULL,
            fund_codes text[] NOT NULL,
            fund_fen bigint[] NOT NULL
        ) PARTITION BY RANGE (settlement_id)
        """
    )
    op.execute("CREATE INDEX outcome_day ON relay.outcome (business_day, care_site, insured_site)")
    grant("outcome", "SELECT, INSERT")


def downgrade() -> None:
    op.execute("DROP TABLE relay.outcome")
