"""What every table shares: how Python's types are stored, how constraints are named, and the values of the states."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

# Run states that still need work, and those that end a run. `promoted` is also the end of run 0 (the base of `tiny`).
OPEN_STATES = ("claimed", "training", "evaluating")
CLOSED_STATES = ("promoted", "held", "rejected", "failed")
# `consolidation` is an adapter too, made from the base again instead of from the one in service.
RUN_KINDS = ("base", "adapter", "consolidation")
SPLITS = ("train", "validation", "test")
# `base` and `train` consume an item as new data, once (I2); `replay` and `consolidation` may repeat it.
CONSUMING_ROLES = ("base", "train")
ROLES = (*CONSUMING_ROLES, "replay", "consolidation")


now = sa.func.now


def one_of(column: str, values: tuple[str, ...]) -> str:
    """Write the condition of a column that has one of these values."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Base(DeclarativeBase):
    """Every table of codelupe."""

    type_annotation_map = {  # noqa: RUF012
        dt.datetime: sa.TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        int: sa.BigInteger,
        str: sa.Text,
        float: sa.Double,
    }
    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
