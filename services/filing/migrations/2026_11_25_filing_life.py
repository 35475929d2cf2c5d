"""Filings live: states, versions, history, one version per person, request ids of their own.

What was filed before is accepted in its first version, taken over.
"""

from alembic import op

from infra.runtime.migrate import grant

revision = "filing_0002"
down_revision = "filing_0001"
branch_labels = None
depends_on = None

_CHANGING = "state, version, end_date, commitment, materials, due_date, changed_on"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE filing.filing
            ADD COLUMN state smallint NOT NULL DEFAULT 2 CHECK (state BETWEEN 1 AND 5),
            ADD COLUMN version bigint NOT NULL DEFAULT 1 CHECK (version > 0),
            ADD COLUMN disease_code text NOT NULL DEFAULT '',
            ADD COLUMN materials integer NOT NULL DEFAULT 0,
            ADD COLUMN due_date date,
            ADD COLUMN replaces uuid,
            ADD COLUMN changed_on date,
            ADD CHECK ((state = 1) = (due_date IS NOT NULL))""")
    op.execute("""
        CREATE TABLE filing.person (
            person_id uuid PRIMARY KEY,
            version bigint NOT NULL CHECK (version > 0)
        )""")
    op.execute("""
        CREATE TABLE filing.history (
            filing_id uuid NOT NULL,
            version bigint NOT NULL,
            action smallint NOT NULL,
            state smallint NOT NULL,
            at timestamptz NOT NULL,
            channel smallint NOT NULL,
            actor text NOT NULL,
            cause text NOT NULL,
            PRIMARY KEY (filing_id, version)
        )""")
    op.execute("""
        CREATE TABLE filing.request (
            request_id text NOT NULL,
            caller text NOT NULL,
            digest bytea NOT NULL CHECK (length(digest) = 32),
            filing_id uuid NOT NULL,
            answer bytea,
            PRIMARY KEY (request_id, caller)
        )""")
    op.execute("INSERT INTO filing.person SELECT DISTINCT person_id, 1 FROM filing.filing")
    op.execute("""
        INSERT INTO filing.history
        SELECT filing_id, 1, 9, 2, recorded_at, channel,
               'operator/' || coalesce(substring(caller FROM '/site/([0-9]{6})/'), ''), ''
        FROM filing.filing""")
    op.execute("""
        INSERT INTO filing.request
        SELECT request_id::text, caller, body_digest, filing_id, NULL FROM filing.filing""")
    op.execute("""
        ALTER TABLE filing.filing
            DROP COLUMN caller, DROP COLUMN request_id, DROP COLUMN body_digest""")
    op.execute("""
        CREATE INDEX filing_pending ON filing.filing (insured_area, due_date, filing_id)
        WHERE state = 1""")
    grant("filing", f"UPDATE ({_CHANGING})")
    grant("person", "SELECT, INSERT, UPDATE (version)")
    for table in ("history", "request"):
        grant(table, "SELECT, INSERT")


def downgrade() -> None:
    # What covers nothing cannot be said without states: it would cover again.
    op.execute("DELETE FROM filing.filing WHERE state NOT IN (2, 4)")
    op.execute("DROP INDEX filing.filing_pending")
    op.execute("""
        ALTER TABLE filing.filing
            ADD COLUMN caller text, ADD COLUMN request_id uuid, ADD COLUMN body_digest bytea""")
    # The request id it was taken over with; without a UUID of its own the filing's id is it.
    op.execute("""
        UPDATE filing.filing AS filing
        SET caller = coalesce(request.caller, ''),
            request_id = coalesce(request.request_id::uuid, filing.filing_id),
            body_digest = coalesce(request.digest, sha256(filing.filing_id::text::bytea))
        FROM filing.filing AS same
        LEFT JOIN (
            SELECT DISTINCT ON (filing_id) * FROM filing.request
            WHERE request_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            ORDER BY filing_id, answer IS NOT NULL, request_id
        ) AS request ON request.filing_id = same.filing_id
        WHERE same.filing_id = filing.filing_id""")
    op.execute("""
        ALTER TABLE filing.filing
            ALTER COLUMN caller SET NOT NULL,
            ALTER COLUMN request_id SET NOT NULL,
            ALTER COLUMN body_digest SET NOT NULL,
            ADD CHECK (length(body_digest) = 32),
            ADD UNIQUE (request_id, caller),
            DROP COLUMN state, DROP COLUMN version, DROP COLUMN disease_code,
            DROP COLUMN materials, DROP COLUMN due_date, DROP COLUMN replaces,
            DROP COLUMN changed_on""")
    for table in ("request", "history", "person"):
        op.execute(f"DROP TABLE filing.{table}")
