"""Bulk imports: which parts of a file are there, what came of them, and the rows not taken.

Nothing here tells what a row says: a line, a column and a cause. `import_row` finds a participant
and insurance that a file names twice; its rows go when the import is finished.
"""

from alembic import op

from infra.runtime.migrate import grant

revision = "enrollment_0003"
down_revision = "enrollment_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE enrollment.import (
            import_id uuid PRIMARY KEY,
            actor text NOT NULL,
            file_digest bytea NOT NULL CHECK (length(file_digest) = 32),
            area text NOT NULL CHECK (area ~ '^[0-9]{6}$'),
            file_name text NOT NULL,
            header text NOT NULL,
            rows bigint NOT NULL,
            employees bigint NOT NULL,
            residents bigint NOT NULL,
            started_at timestamptz NOT NULL,
            finished_at timestamptz,
            UNIQUE (actor, file_digest, area)
        )""")
    op.execute("""
        CREATE TABLE enrollment.import_part (
            import_id uuid NOT NULL REFERENCES enrollment.import,
            number bigint NOT NULL CHECK (number >= 1),
            first_line bigint NOT NULL,
            next_line bigint NOT NULL CHECK (next_line > first_line),
            digest bytea NOT NULL CHECK (length(digest) = 32),
            rows bigint NOT NULL,
            employees bigint NOT NULL,
            residents bigint NOT NULL,
            accepted bigint NOT NULL,
            unchanged bigint NOT NULL,
            rejected bigint NOT NULL CHECK (accepted + unchanged + rejected = rows),
            taken_at timestamptz NOT NULL,
            PRIMARY KEY (import_id, number)
        )""")
    op.execute("""
        CREATE TABLE enrollment.import_rejected (
            import_id uuid NOT NULL REFERENCES enrollment.import,
            line bigint NOT NULL,
            field text NOT NULL,
            cause text NOT NULL,
            PRIMARY KEY (import_id, line)
        )""")
    # The key is the first half of the blind index: 128 bits of an HMAC.
    op.execute("""
        CREATE TABLE enrollment.import_row (
            import_id uuid NOT NULL,
            person_key bytea NOT NULL CHECK (length(person_key) = 16),
            insurance smallint NOT NULL,
            PRIMARY KEY (import_id, person_key, insurance)
        )""")
    for table in ("import", "import_part", "import_rejected"):
        grant(table, "SELECT, INSERT")
    grant("import", "UPDATE (rows, employees, residents, finished_at)")
    grant("import_row", "SELECT, INSERT, DELETE")


def downgrade() -> None:
    op.execute("""
        DROP TABLE enrollment.import_row, enrollment.import_rejected, enrollment.import_part,
                   enrollment.import""")
