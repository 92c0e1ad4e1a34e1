"""Alembic's environment: it runs on the connection that the worker hands over, inside that one transaction."""

from __future__ import annotations

from alembic import context

from workers.voices.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
