"""Imports of lists: which parts of a file are there, and the rows that cannot be taken.

Rows of a CSV go into the items of an open version; rows of the national tables wait in
`import_row` until the tables are joined. An import that is given up goes with its open version: the
service deletes no item, a function does, and only of a version that nobody has seen.
"""

from alembic import op

from infra.runtime.migrate import grant

revision = "catalog_03"
down_revision = "catalog_02"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE catalog.import (
            import_id uuid PRIMARY KEY,
            actor text NOT NULL,
            file_digest bytea NOT NULL CHECK (octet_length(file_digest) = 32),
            area text NOT NULL CHECK (area ~ '^[0-9]{6}$'),
            version text NOT NULL CHECK (version <> ''),
            effective_from date NOT NULL,
            file_name text NOT NULL,
            layouts smallint[] NOT NULL,
            headers text[] NOT NULL CHECK (cardinality(headers) = cardinality(layouts)),
            version_id bigint NOT NULL REFERENCES catalog.version,
            started_at timestamptz NOT NULL,
            checked_at timestamptz,
            published_at timestamptz,
            codes bigint,
            added bigint,
            changed bigint,
            removed bigint,
            UNIQUE (file_digest, area, version)
        )""")
    op.execute("""
        CREATE INDEX import_open ON catalog.import (started_at) WHERE published_at IS NULL""")
    op.execute("""
        CREATE TABLE catalog.import_part (
            import_id uuid NOT NULL REFERENCES catalog.import ON DELETE CASCADE,
            number bigint NOT NULL CHECK (number >= 1),
            place smallint NOT NULL CHECK (place >= 0),
            first_line bigint NOT NULL,
            next_line bigint NOT NULL CHECK (next_line > first_line),
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            rows bigint NOT NULL,
            rejected bigint NOT NULL CHECK (rejected <= rows),
            taken_at timestamptz NOT NULL,
            PRIMARY KEY (import_id, number)
        )""")
    op.execute("""
        CREATE TABLE catalog.import_rejected (
            import_id uuid NOT NULL REFERENCES catalog.import ON DELETE CASCADE,
            place smallint NOT NULL,
            line bigint NOT NULL,
            field text NOT NULL,
            cause text NOT NULL,
            PRIMARY KEY (import_id, place, line)
        )""")
    op.execute("""
        CREATE TABLE catalog.import_row (
            import_id uuid NOT NULL,
            layout smallint NOT NULL,
            place smallint NOT NULL,
            line bigint NOT NULL,
            national_code text COLLATE "C" NOT NULL,
            first_day date,
            last_day date,
            key smallint NOT NULL,
            value bigint,
            name text,
            list_type smallint,
            catalog_class smallint,
            fee_category smallint,
            limited_use text,
            PRIMARY KEY (import_id, place, line)
        )""")
    op.execute("""
        CREATE FUNCTION catalog.forget_import(forgotten uuid) RETURNS void
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
        DECLARE listed bigint;
        BEGIN
            DELETE FROM catalog.import WHERE import_id = forgotten RETURNING version_id INTO listed;
            DELETE FROM catalog.import_row WHERE import_id = forgotten;
            DELETE FROM catalog.version WHERE id = listed AND publication IS NULL;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'a published version is never deleted'
                    USING ERRCODE = 'insufficient_privilege';
            END IF;
            DELETE FROM catalog.item WHERE version_id = listed;
        END $$""")
    op.execute("REVOKE EXECUTE ON FUNCTION catalog.forget_import FROM PUBLIC")
    op.execute(
        f"GRANT EXECUTE ON FUNCTION catalog.forget_import TO {op.get_context().opts['app_role']}"
    )
    for table in ("import", "import_part", "import_rejected", "import_row"):
        grant(table, "SELECT, INSERT")
    grant("import", "UPDATE (checked_at, published_at, codes, added, changed, removed)")
    grant("import_row", "DELETE")


def downgrade() -> None:
    op.execute("DROP FUNCTION catalog.forget_import")
    op.execute("""
        DROP TABLE catalog.import_row, catalog.import_rejected, catalog.import_part,
                   catalog.import""")
