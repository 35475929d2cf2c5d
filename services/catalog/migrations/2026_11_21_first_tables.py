"""First tables of the catalogue. All are written once: corrections are new rows.

Classes, categories, grades and levels are stored as the contract's enum numbers.
"""

from alembic import op

from infra.runtime.migrate import grant

revision = "catalog_01"
down_revision = None
branch_labels = None
depends_on = None

_LIMITS = ("limit_one", "limit_two", "limit_three", "limit_other", "limit_unrated")
_SERVICES = "ARRAY['inpatient', 'outpatient', 'chronic', 'pharmacy']"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE catalog.version (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            area text NOT NULL CHECK (area ~ '^[0-9]{6}$'),
            version text NOT NULL CHECK (version <> ''),
            effective_from date NOT NULL,
            content_hash bytea NOT NULL CHECK (octet_length(content_hash) = 32),
            published_at timestamptz NOT NULL,
            UNIQUE (area, version)
        )""")
    limits = ", ".join(f"{name} bigint CHECK ({name} >= 0)" for name in _LIMITS)
    op.execute(f"""
        CREATE TABLE catalog.item (
            version_id bigint NOT NULL REFERENCES catalog.version,
            national_code text NOT NULL,
            effective_from date NOT NULL,
            effective_to date,
            name text NOT NULL,
            catalog_class smallint NOT NULL CHECK (catalog_class BETWEEN 1 AND 3),
            fee_category smallint NOT NULL CHECK (fee_category BETWEEN 1 AND 14),
            first_self_pay_310 integer NOT NULL CHECK (first_self_pay_310 BETWEEN 0 AND 10000),
            first_self_pay_390 integer NOT NULL CHECK (first_self_pay_390 BETWEEN 0 AND 10000),
            {limits},
            limited_use text NOT NULL,
            PRIMARY KEY (version_id, national_code, effective_from),
            CHECK (effective_to >= effective_from)
        )""")
    op.execute(f"""
        CREATE TABLE catalog.institution (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            code text NOT NULL,
            effective_from date NOT NULL,
            name text NOT NULL,
            area text NOT NULL CHECK (area ~ '^[0-9]{{6}}$'),
            grade smallint NOT NULL CHECK (grade BETWEEN 1 AND 14),
            deductible_level smallint NOT NULL CHECK (deductible_level BETWEEN 1 AND 5),
            price_limit_level smallint NOT NULL CHECK (price_limit_level BETWEEN 1 AND 5),
            settlement_level smallint NOT NULL CHECK (settlement_level BETWEEN 1 AND 5),
            local text[] NOT NULL CHECK (local <@ {_SERVICES}),
            in_province text[] NOT NULL CHECK (in_province <@ {_SERVICES}),
            cross_province text[] NOT NULL CHECK (cross_province <@ {_SERVICES}),
            suspended boolean NOT NULL,
            recorded_at timestamptz NOT NULL
        )""")
    op.execute("CREATE INDEX ON catalog.institution (code, effective_from, id)")
    op.execute("""
        CREATE TABLE catalog.institution_item (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            institution text NOT NULL,
            item_code text NOT NULL,
            national_code text NOT NULL,
            recorded_at timestamptz NOT NULL
        )""")
    op.execute("CREATE INDEX ON catalog.institution_item (institution, item_code, id)")
    op.execute("""
        CREATE TABLE catalog.audit (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL,
            actor text NOT NULL,
            action text NOT NULL,
            subject text NOT NULL,
            digest bytea NOT NULL
        )""")
    for table in ("version", "item", "institution", "institution_item"):
        grant(table, "SELECT, INSERT")
    grant("audit", "INSERT")


def downgrade() -> None:
    for table in ("audit", "institution_item", "institution", "item", "version"):
        op.execute(f"DROP TABLE catalog.{table}")
