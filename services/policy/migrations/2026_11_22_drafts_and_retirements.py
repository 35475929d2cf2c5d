"""Drafts, their reviews, retirements: every state of a document is a row of its own.

The keys say what the rules are: a draft is reviewed once and never by its author; what is published
from a draft is the draft that was approved; a version is retired once and not by its publisher.
"""

from alembic import op

from infra.runtime.migrate import grant

revision = "policy_2"
down_revision = "policy_1"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE policy.draft (
            draft_id uuid PRIMARY KEY,
            area text NOT NULL,
            insurance text NOT NULL,
            version text NOT NULL,
            title text NOT NULL,
            effective_from date NOT NULL,
            effective_to date NOT NULL,
            written text NOT NULL,
            content text NOT NULL,
            hash bytea NOT NULL CHECK (octet_length(hash) = 32),
            warnings jsonb NOT NULL,
            author text NOT NULL,
            comment text NOT NULL,
            drafted_at timestamptz NOT NULL,
            UNIQUE (draft_id, author),
            UNIQUE (draft_id, hash)
        )
    """)
    op.execute("""
        CREATE TABLE policy.review (
            draft_id uuid PRIMARY KEY,
            author text NOT NULL,
            reviewer text NOT NULL CHECK (reviewer <> author),
            approved boolean NOT NULL,
            comment text NOT NULL,
            reviewed_at timestamptz NOT NULL,
            UNIQUE (draft_id, approved),
            FOREIGN KEY (draft_id, author) REFERENCES policy.draft (draft_id, author)
        )
    """)
    op.execute("""
        ALTER TABLE policy.document
            ADD COLUMN title text NOT NULL DEFAULT '',
            ADD COLUMN written text NOT NULL DEFAULT '',
            ADD COLUMN published_by text NOT NULL DEFAULT 'loader',
            ADD COLUMN comment text NOT NULL DEFAULT '',
            ADD COLUMN draft_id uuid UNIQUE,
            ADD COLUMN approved boolean CHECK (approved),
            ADD CHECK ((draft_id IS NULL) = (approved IS NULL)),
            ADD UNIQUE (publication, published_by),
            ADD FOREIGN KEY (draft_id, approved) REFERENCES policy.review (draft_id, approved),
            ADD FOREIGN KEY (draft_id, hash) REFERENCES policy.draft (draft_id, hash)
    """)
    op.execute("""
        CREATE TABLE policy.retirement (
            number bigint PRIMARY KEY CHECK (number > 0),
            publication bigint NOT NULL UNIQUE,
            publisher text NOT NULL,
            retired_by text NOT NULL CHECK (retired_by <> publisher),
            from_day date NOT NULL,
            comment text NOT NULL,
            retired_at timestamptz NOT NULL,
            activated_at timestamptz NOT NULL CHECK (activated_at >= retired_at),
            FOREIGN KEY (publication, publisher)
                REFERENCES policy.document (publication, published_by)
        )
    """)
    op.execute("""
        CREATE TABLE policy.request_key (
            caller text NOT NULL,
            method text NOT NULL,
            request_id text NOT NULL,
            body_digest bytea NOT NULL,
            draft_id uuid,
            publication bigint,
            at timestamptz NOT NULL,
            PRIMARY KEY (caller, method, request_id),
            CHECK ((draft_id IS NULL) <> (publication IS NULL))
        )
    """)
    for table in ("draft", "review", "retirement", "request_key"):
        grant(table, "SELECT, INSERT")


def downgrade() -> None:
    op.execute("DROP TABLE policy.request_key, policy.retirement")
    op.execute("""
        ALTER TABLE policy.document
            DROP COLUMN approved, DROP COLUMN draft_id, DROP COLUMN comment,
            DROP COLUMN published_by, DROP COLUMN written, DROP COLUMN title
    """)
    op.execute("DROP TABLE policy.review, policy.draft")
