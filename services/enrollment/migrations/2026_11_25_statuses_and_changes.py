"""What can change of a participant: statuses by day, replaced numbers, qualifications, sharing.

A status is stored with its first day only and lasts until the next one of its relation: a hole or
an overlap cannot be written.
"""

from alembic import op

from infra.runtime.migrate import grant

revision = "enrollment_0002"
down_revision = "enrollment_0001"
branch_labels = None
depends_on = None

_CHANGEABLE = {
    "participant": "version",
    "credential": "replaced_on",
    "relation": "person_class, civil_servant, contracted_institution",
    "status": "status, to_area",
    "chronic_qualification": "end_date, granted_area, chosen_institutions",
    "sharing": "end_date",
}
"""Columns that the service may update; nothing is ever deleted."""


def upgrade() -> None:
    op.execute("ALTER TABLE enrollment.participant ADD version bigint NOT NULL DEFAULT 1")
    # Type 9 is a personal number (人员编号), which is no credential of the contract.
    op.execute("ALTER TABLE enrollment.credential ADD replaced_on date")
    op.execute("CREATE INDEX credential_person ON enrollment.credential (person_id)")
    op.execute("ALTER TABLE enrollment.insurance RENAME TO relation")
    op.execute("ALTER INDEX enrollment.insurance_pkey RENAME TO relation_pkey")
    op.execute("""
        ALTER TABLE enrollment.relation
            ADD contracted_institution text NOT NULL DEFAULT ''""")
    op.execute("""
        CREATE TABLE enrollment.status (
            person_id uuid NOT NULL,
            area text NOT NULL,
            insurance smallint NOT NULL,
            start_date date NOT NULL,
            status smallint NOT NULL CHECK (status BETWEEN 1 AND 4),
            to_area text NOT NULL CHECK (to_area = '' OR (status = 3 AND to_area ~ '^[0-9]{6}$')),
            PRIMARY KEY (person_id, area, insurance, start_date),
            FOREIGN KEY (person_id, area, insurance) REFERENCES enrollment.relation
        )""")
    op.execute("""
        INSERT INTO enrollment.status (person_id, area, insurance, start_date, status, to_area)
        SELECT person_id, area, insurance, active_from, 1, '' FROM enrollment.relation
        UNION ALL
        SELECT person_id, area, insurance, active_until + 1, 4, '' FROM enrollment.relation
        WHERE active_until IS NOT NULL""")
    op.execute("""
        ALTER TABLE enrollment.chronic_qualification
            ADD start_date date,
            ADD end_date date,
            ADD granted_area text CHECK (granted_area ~ '^[0-9]{6}$'),
            ADD chosen_institutions text[] NOT NULL DEFAULT '{}',
            DROP CONSTRAINT chronic_qualification_pkey""")
    op.execute("""
        UPDATE enrollment.chronic_qualification AS chronic
        SET start_date = relation.active_from, granted_area = relation.area
        FROM enrollment.relation
        WHERE (relation.person_id, relation.area, relation.insurance)
            = (chronic.person_id, chronic.area, chronic.insurance)""")
    op.execute("""
        ALTER TABLE enrollment.chronic_qualification
            ALTER start_date SET NOT NULL,
            ALTER granted_area SET NOT NULL,
            ADD PRIMARY KEY (person_id, area, insurance, disease_code, start_date)""")
    op.execute("ALTER TABLE enrollment.relation DROP active_from, DROP active_until")
    op.execute("""
        CREATE TABLE enrollment.sharing (
            owner_person_id uuid NOT NULL REFERENCES enrollment.participant,
            user_person_id uuid NOT NULL REFERENCES enrollment.participant,
            account_id uuid NOT NULL,
            start_date date NOT NULL,
            end_date date,
            PRIMARY KEY (owner_person_id, user_person_id, start_date),
            CHECK (owner_person_id <> user_person_id)
        )""")
    op.execute("CREATE INDEX sharing_user ON enrollment.sharing (user_person_id)")
    op.execute("""
        CREATE TABLE enrollment.change_request (
            caller text NOT NULL,
            request_id text NOT NULL,
            digest bytea NOT NULL CHECK (length(digest) = 32),
            person_id uuid NOT NULL REFERENCES enrollment.participant,
            answer bytea NOT NULL,
            changed_at timestamptz NOT NULL,
            PRIMARY KEY (caller, request_id)
        )""")
    op.execute("""
        COMMENT ON COLUMN enrollment.change_request.answer IS
        'AES-256-GCM, bound to person_id and column'""")
    for table in ("status", "sharing", "change_request"):
        grant(table, "SELECT, INSERT")
    for table, columns in _CHANGEABLE.items():
        grant(table, f"UPDATE ({columns})")


def downgrade() -> None:
    """What the former tables cannot say is lost; a suspension shows as the end of insurance."""
    op.execute("DROP TABLE enrollment.change_request, enrollment.sharing")
    op.execute(
        "REVOKE UPDATE (person_class, civil_servant) ON enrollment.relation "
        f"FROM {op.get_context().opts['app_role']}"
    )
    op.execute("""
        ALTER TABLE enrollment.relation
            DROP contracted_institution, ADD active_from date, ADD active_until date""")
    op.execute("""
        UPDATE enrollment.relation
        SET active_from = spell.first,
            active_until = CASE WHEN spell.last_status <> 1
                                THEN GREATEST(spell.last - 1, spell.first) END
        FROM (SELECT person_id, area, insurance, min(start_date) AS first, max(start_date) AS last,
                     (array_agg(status ORDER BY start_date DESC))[1] AS last_status
              FROM enrollment.status GROUP BY person_id, area, insurance) AS spell
        WHERE (relation.person_id, relation.area, relation.insurance)
            = (spell.person_id, spell.area, spell.insurance)""")
    op.execute("""
        ALTER TABLE enrollment.relation
            ALTER active_from SET NOT NULL, ADD CHECK (active_until >= active_from)""")
    op.execute("DROP TABLE enrollment.status")
    op.execute("ALTER INDEX enrollment.relation_pkey RENAME TO insurance_pkey")
    op.execute("ALTER TABLE enrollment.relation RENAME TO insurance")
    op.execute("""
        DELETE FROM enrollment.chronic_qualification AS older
        USING enrollment.chronic_qualification AS newer
        WHERE (older.person_id, older.area, older.insurance, older.disease_code)
            = (newer.person_id, newer.area, newer.insurance, newer.disease_code)
          AND older.start_date < newer.start_date""")
    op.execute("""
        ALTER TABLE enrollment.chronic_qualification
            DROP CONSTRAINT chronic_qualification_pkey,
            DROP start_date, DROP end_date, DROP granted_area, DROP chosen_institutions,
            ADD PRIMARY KEY (person_id, area, insurance, disease_code)""")
    op.execute("DROP INDEX enrollment.credential_person")
    op.execute("ALTER TABLE enrollment.credential DROP replaced_on")
    op.execute("ALTER TABLE enrollment.participant DROP version")
