"""Meta apps, and the app and number of a WhatsApp connection."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "apps",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_apps"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_apps_tenants"),
    )
    op.add_column("connections", sa.Column("app_id", sa.String(), nullable=True))
    op.add_column("connections", sa.Column("number", sa.String(), nullable=True))
    op.create_index("ix_connections_app_id_number", "connections", ["app_id", "number"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_connections_app_id_number", "connections")
    op.drop_column("connections", "number")
    op.drop_column("connections", "app_id")
    op.drop_table("apps")
