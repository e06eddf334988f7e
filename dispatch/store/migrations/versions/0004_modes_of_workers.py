"""Workers say which execution mode they work in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("execution_mode", sa.String(length=40), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "execution_mode")
