"""Who may work on what, and what is due now and then."""

import datetime as dt
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import Base


class Lease(Base):
    """Who may work on a line or a device, until when by the database's clock. The fence only grows (I5)."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(primary_key=True)  # line:<name> | device:<machine>:<GPU UUID or cpu>
    holder: Mapped[str]
    fence: Mapped[int]
    until: Mapped[dt.datetime]


class Chore(Base):
    """Something that is to be done now and then by whichever worker comes first, and when it is due again."""

    __tablename__ = "chores"
    name: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[dt.datetime]
    figures: Mapped[dict[str, Any]] = mapped_column(server_default="{}")  # what it did the last time
