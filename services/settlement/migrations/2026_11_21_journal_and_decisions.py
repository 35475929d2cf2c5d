"""The care place's journal with its claims, the insured place's decisions with their balances."""

from alembic import op

from infra.runtime.migrate import grant

revision = "settlement_0001"
down_revision = None
branch_labels = None
depends_on = None

AMOUNTS = """
    total_fen bigint, full_self_pay_fen bigint, over_limit_fen bigint, first_self_pay_fen bigint,
    in_scope_fen bigint, remote_first_pay_fen bigint, deductible_fen bigint,
    ratio_self_pay_fen bigint, over_cap_fen bigint, fund_total_fen bigint, account_fen bigint,
    cash_fen bigint, hospital_fen bigint, fund_codes text[], fund_fen bigint[],
"""


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE settlement.request_key (
            caller text NOT NULL,
            method text NOT NULL,
            request_id text NOT NULL,
            settlement_id uuid NOT NULL,
            body_digest bytea NOT NULL,
            state text NOT NULL,
            opened_at timestamptz NOT NULL,
            PRIMARY KEY (caller, method, request_id)
        )
        """
    )
    grant("request_key", "SELECT, INSERT, UPDATE")
    op.execute(
        """
        CREATE TABLE settlement.bill (
            institution text NOT NULL,
            visit_id text NOT NULL,
            bill_id text NOT NULL,
            settlement_id uuid NOT NULL,
            request_id text NOT NULL,
            state text NOT NULL,
            PRIMARY KEY (institution, visit_id, bill_id)
        )
        """
    )
    grant("bill", "SELECT, INSERT, UPDATE")
    op.execute(
        f"""
        CREATE TABLE settlement.care_journal (
            settlement_id uuid PRIMARY KEY,
            state text NOT NULL CHECK (
                state IN ('PENDING', 'COMPLETED', 'REJECTED', 'IN_DOUBT', 'ABORTED')
            ),
            caller text NOT NULL,
            method text NOT NULL,
            request_id text NOT NULL,
            body_digest bytea NOT NULL,
            payload_digest bytea NOT NULL,
            institution text NOT NULL,
            visit_id text NOT NULL,
            bill_id text NOT NULL,
            bill_claimed boolean NOT NULL,
            care_area text NOT NULL,
            insured_area text NOT NULL,
            route smallint NOT NULL,
            kind smallint NOT NULL,
            undoes uuid,
            request bytea NOT NULL,
            operator text NOT NULL,
            traceparent text NOT NULL,
            opened_at timestamptz NOT NULL,
            deadline_at timestamptz NOT NULL,
            state_at timestamptz NOT NULL,
            cancel_requested boolean NOT NULL DEFAULT false,
            reason bytea,
            hops bytea,
            outcome_header bytea,
            outcome_details bytea,
            outcome_digest bytea,
            business_day date,
            care_site text NOT NULL,
            insured_site text NOT NULL,
            {AMOUNTS}
            CHECK ((state = 'COMPLETED') = (outcome_digest IS NOT NULL))
        ) PARTITION BY RANGE (settlement_id)
        """
    )
    op.execute(
        "CREATE INDEX care_journal_day ON settlement.care_journal "
        "(business_day, care_site, insured_site)"
    )
    op.execute(
        "CREATE INDEX care_journal_open ON settlement.care_journal (state_at) "
        "WHERE state IN ('PENDING', 'IN_DOUBT')"
    )
    grant("care_journal", "SELECT, INSERT, UPDATE")
    op.execute(
        f"""
        CREATE TABLE settlement.decision (
            settlement_id uuid PRIMARY KEY,
            state text NOT NULL CHECK (state IN ('COMMITTED', 'REJECTED', 'ABORTED')),
            kind smallint NOT NULL,
            undoes uuid,
            request_digest bytea NOT NULL,
            institution text NOT NULL,
            care_area text NOT NULL,
            insured_area text NOT NULL,
            insurance smallint NOT NULL,
            person_id uuid,
            decided_at timestamptz NOT NULL,
            outcome_header bytea,
            outcome_details bytea,
            outcome_digest bytea,
            rejection bytea,
            balances jsonb NOT NULL,
            policy_case bytea,
            business_day date,
            care_site text,
            insured_site text,
            {AMOUNTS}
            CHECK ((state = 'COMMITTED') = (outcome_digest IS NOT NULL)),
            CHECK ((state = 'COMMITTED') = (rejection IS NULL))
        ) PARTITION BY RANGE (settlement_id)
        """
    )
    op.execute(
        "CREATE INDEX decision_day ON settlement.decision (business_day, care_site, insured_site)"
    )
    grant("decision", "SELECT, INSERT")
    op.execute(
        """
        CREATE TABLE settlement.accumulator (
            insured_area text NOT NULL,
            insurance smallint NOT NULL,
            person_id uuid NOT NULL,
            period text NOT NULL,
            version bigint NOT NULL,
            stay_count bigint NOT NULL,
            deductible_paid_fen bigint NOT NULL,
            pooled_used_fen bigint NOT NULL,
            large_amount_used_fen bigint NOT NULL,
            major_illness_base_fen bigint NOT NULL,
            major_illness_used_fen bigint NOT NULL,
            assistance_used_fen bigint NOT NULL,
            PRIMARY KEY (insured_area, insurance, person_id, period)
        )
        """
    )
    grant("accumulator", "SELECT, INSERT, UPDATE")
    op.execute(
        """
        CREATE TABLE settlement.account (
            account_id uuid PRIMARY KEY,
            version bigint NOT NULL,
            balance_fen bigint NOT NULL CHECK (balance_fen >= 0)
        )
        """
    )
    grant("account", "SELECT, INSERT, UPDATE")
    op.execute(
        """
        CREATE TABLE settlement.audit (
            audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL,
            actor text NOT NULL,
            action text NOT NULL,
            subject uuid NOT NULL,
            digest bytea
        )
        """
    )
    grant("audit", "SELECT, INSERT")


def downgrade() -> None:
    for table in (
        "audit",
        "account",
        "accumulator",
        "decision",
        "care_journal",
        "bill",
        "request_key",
    ):
        op.execute(f"DROP TABLE settlement.{table}")
