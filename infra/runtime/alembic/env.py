"""Alembic's environment, shared by every service: it runs on the connection it is given."""

from alembic import context

context.configure(**context.config.attributes["configure"])
with context.begin_transaction():
    context.run_migrations()
