"""Alembic runs this file; `shared.config.database` gives it an open connection inside a transaction."""

from __future__ import annotations

from alembic import context

from shared.config.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
