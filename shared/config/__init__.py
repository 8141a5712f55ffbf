"""What tenants configure: its tables, the repository that changes them, and the publishing of what functions read.

The only package that imports SQLAlchemy; `ingest`, `run_agent` and `callbacks` never import it.
"""
