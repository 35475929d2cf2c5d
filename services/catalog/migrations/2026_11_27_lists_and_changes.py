"""Lists that change after they are published: every publication is numbered over the whole site.

A version is a whole list (FULL) or amends one (CHANGE); it is open, and nobody sees it, until it
gets its number. A published version never changes again: a trigger says so.
"""

from alembic import op

from infra.runtime.migrate import grant

revision = "catalog_02"
down_revision = "catalog_01"
branch_labels = None
depends_on = None

_PUBLISHED = ("publication", "codes", "content_hash", "published_at", "actor")
"""Columns that an open version gets when it is published."""

# As the service hashes a version: of each row a digest of its columns, in order of the digests.
_CONTENT = """
    SELECT item.version_id, count(DISTINCT item.national_code) AS codes,
           string_agg(digest, ''::bytea ORDER BY digest) AS digests
    FROM catalog.item, LATERAL (SELECT sha256(convert_to(concat_ws(E'\\x1f',
        item.national_code,
        (item.effective_from - DATE '2000-01-01')::text,
        coalesce((item.effective_to - DATE '2000-01-01')::text, ''),
        item.name, item.list_type::text, item.catalog_class::text, item.fee_category::text,
        item.first_self_pay_310::text, item.first_self_pay_390::text,
        coalesce(item.limit_one::text, ''), coalesce(item.limit_two::text, ''),
        coalesce(item.limit_three::text, ''), coalesce(item.limit_other::text, ''),
        coalesce(item.limit_unrated::text, ''), item.limited_use, '', '', '', '', '', '', '', '',
        '0', '0', ''), 'UTF8')) AS digest) AS hashed
    GROUP BY item.version_id"""


def upgrade() -> None:
    op.execute("""
        ALTER TABLE catalog.version
            ADD kind text NOT NULL DEFAULT 'FULL' CHECK (kind IN ('FULL', 'CHANGE')),
            ADD base_id bigint REFERENCES catalog.version,
            ADD publication bigint UNIQUE,
            ADD codes bigint,
            ADD actor text,
            ADD reason text NOT NULL DEFAULT '',
            ADD operator text NOT NULL DEFAULT '',
            ALTER content_hash DROP NOT NULL,
            ALTER published_at DROP NOT NULL,
            DROP CONSTRAINT version_area_version_key,
            ADD CHECK ((kind = 'CHANGE') = (base_id IS NOT NULL))""")
    # Codes compare as bytes, so that one index serves equality, order and beginnings. The first
    # tables held a version's items in no order of their own; no row asks for its version again:
    # a check per row would double the cost of an import.
    op.execute("""
        ALTER TABLE catalog.item
            DROP CONSTRAINT item_pkey,
            DROP CONSTRAINT item_version_id_fkey,
            ALTER national_code TYPE text COLLATE "C",
            ADD line bigint,
            ADD list_type smallint CHECK (list_type BETWEEN 1 AND 8),
            ADD band_up_to bigint[] NOT NULL DEFAULT '{}',
            ADD band_310 integer[] NOT NULL DEFAULT '{}',
            ADD band_390 integer[] NOT NULL DEFAULT '{}',
            ADD day_limit_e4 bigint CHECK (day_limit_e4 > 0),
            ADD visit_limit_e4 bigint CHECK (visit_limit_e4 > 0),
            ADD dosage_form text NOT NULL DEFAULT '',
            ADD specification text NOT NULL DEFAULT '',
            ADD unit text NOT NULL DEFAULT '',
            ADD negotiated boolean NOT NULL DEFAULT false,
            ADD centrally_purchased boolean NOT NULL DEFAULT false,
            ADD preparing_institution text NOT NULL DEFAULT '',
            ADD CHECK (cardinality(band_up_to) = cardinality(band_310)
                       AND cardinality(band_310) = cardinality(band_390))""")
    op.execute("""
        UPDATE catalog.item SET line = ordered.line,
            list_type = CASE WHEN fee_category IN (9, 11) THEN 1 WHEN fee_category = 10 THEN 2
                             WHEN fee_category = 8 THEN 8 ELSE 7 END
        FROM (SELECT version_id, national_code, effective_from, row_number() OVER (
                  PARTITION BY version_id ORDER BY national_code, effective_from) AS line
              FROM catalog.item) AS ordered
        WHERE (item.version_id, item.national_code, item.effective_from)
            = (ordered.version_id, ordered.national_code, ordered.effective_from)""")
    op.execute("""
        ALTER TABLE catalog.item
            ALTER line SET NOT NULL, ALTER list_type SET NOT NULL,
            ADD PRIMARY KEY (version_id, line)""")
    op.execute("CREATE INDEX item_code ON catalog.item (version_id, national_code)")
    op.execute(f"""
        UPDATE catalog.version
        SET publication = same.id, actor = 'load', codes = coalesce(content.codes, 0),
            content_hash = sha256(
                convert_to((same.effective_from - DATE '2000-01-01')::text, 'UTF8')
                || coalesce(content.digests, ''))
        FROM catalog.version AS same LEFT JOIN ({_CONTENT}) AS content
             ON content.version_id = same.id
        WHERE same.id = version.id""")
    whole = " AND ".join(f"{name} IS NOT NULL" for name in _PUBLISHED)
    op.execute(f"ALTER TABLE catalog.version ADD CHECK (publication IS NULL OR ({whole}))")
    op.execute("""
        CREATE UNIQUE INDEX version_name ON catalog.version (area, version)
        WHERE publication IS NOT NULL""")
    op.execute("CREATE INDEX version_base ON catalog.version (base_id) WHERE base_id IS NOT NULL")
    op.execute("""
        CREATE FUNCTION catalog.refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'a published version never changes'
                USING ERRCODE = 'insufficient_privilege';
        END $$""")
    op.execute("""
        CREATE TRIGGER published_for_ever BEFORE UPDATE ON catalog.version FOR EACH ROW
        WHEN (OLD.publication IS NOT NULL) EXECUTE FUNCTION catalog.refuse_update()""")
    op.execute("""
        CREATE TABLE catalog.request (
            caller text NOT NULL,
            request_id text NOT NULL,
            digest bytea NOT NULL CHECK (octet_length(digest) = 32),
            answer bytea NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (caller, request_id)
        )""")
    grant("version", f"UPDATE ({', '.join(_PUBLISHED)})")
    grant("request", "SELECT, INSERT")


def downgrade() -> None:
    """What the former tables cannot say is lost: changes, and lists that are not published."""
    op.execute("DROP TABLE catalog.request")
    op.execute("DROP TRIGGER published_for_ever ON catalog.version")
    op.execute("DROP FUNCTION catalog.refuse_update()")
    op.execute(
        f"REVOKE UPDATE ({', '.join(_PUBLISHED)}) ON catalog.version "
        f"FROM {op.get_context().opts['app_role']}"
    )
    op.execute("""
        DELETE FROM catalog.item USING catalog.version
        WHERE version.id = item.version_id AND (base_id IS NOT NULL OR publication IS NULL)""")
    op.execute("DELETE FROM catalog.version WHERE base_id IS NOT NULL OR publication IS NULL")
    op.execute("""
        ALTER TABLE catalog.item
            DROP CONSTRAINT item_pkey,
            ALTER national_code TYPE text COLLATE "default",
            DROP line, DROP list_type, DROP band_up_to, DROP band_310, DROP band_390,
            DROP day_limit_e4, DROP visit_limit_e4, DROP dosage_form, DROP specification,
            DROP unit, DROP negotiated, DROP centrally_purchased, DROP preparing_institution,
            ADD PRIMARY KEY (version_id, national_code, effective_from),
            ADD FOREIGN KEY (version_id) REFERENCES catalog.version""")
    op.execute("DROP INDEX catalog.item_code")
    op.execute("DROP INDEX catalog.version_name")
    op.execute("""
        ALTER TABLE catalog.version
            DROP kind, DROP base_id, DROP publication, DROP codes, DROP actor, DROP reason,
            DROP operator,
            ALTER content_hash SET NOT NULL, ALTER published_at SET NOT NULL,
            ADD UNIQUE (area, version)""")
