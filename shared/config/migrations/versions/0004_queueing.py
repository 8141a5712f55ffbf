"""How an agent takes messages that come in quick succession, and how long a tool may take."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

QUEUEING = '{"mode":"steer","debounce_seconds":0.5,"debounce_most_seconds":2.5}'


def upgrade() -> None:
    op.add_column("agent_versions", sa.Column("queueing", sa.Text(), server_default=QUEUEING, nullable=False))
    op.add_column("tools", sa.Column("timeout_seconds", sa.Double(), server_default="60", nullable=False))


def downgrade() -> None:
    op.drop_column("tools", "timeout_seconds")
    op.drop_column("agent_versions", "queueing")
