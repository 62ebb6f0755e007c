"""Alembic's scripts. They travel with the package; there is no alembic.ini."""
