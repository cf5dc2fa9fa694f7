"""The age of accounts, almost without asking: GitHub numbers accounts in the order in which they were made.

Who has a lower number than an account that is old enough is old enough too, and the other way round. So of the owners
of a page, whose numbers the search shows, the middle one of those that are in doubt is asked for, which halves them;
what was answered holds for ever. A crawl asks for a few accounts, not for one per repository.
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

import sqlalchemy as sa
from pydantic import BaseModel, Field, ValidationError

from ingest.github.answers import Rejected
from ingest.github.client import Client
from ingest.github.replies import MAX_NUMBER, Owner, Time
from schema.crawl_owners import fetch_bounds, save_owner

YOUNG, UNKNOWN = "young_owner", "unknown_owner"


class _Account(BaseModel):
    """What GitHub says of an account, as far as it is read."""

    id: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    created_at: Time


@dataclass(slots=True)
class Ages:
    """Judges owners by when their accounts were made."""

    engine: sa.Engine
    client: Client

    def refuse(self, owners: Collection[Owner], made_by: dt.datetime) -> dict[int, str]:
        """Return the reasons against those of the owners that were not made by then, by their numbers.

        Raises:
            ApiError: GitHub cannot be asked now.
        """
        reasons: dict[int, str] = {}
        doubted = {owner.id: owner for owner in owners}
        while True:
            with self.engine.begin() as conn:
                old, young = fetch_bounds(conn, made_by)
            reasons |= {number: YOUNG for number in doubted if number > old and young is not None and number >= young}
            doubted = {number: owner for number, owner in doubted.items() if number > old and number not in reasons}
            if not doubted:
                return reasons
            middle = doubted.pop(sorted(doubted)[len(doubted) // 2])
            if (reason := self._ask(middle, made_by)) is not None:
                reasons[middle.id] = reason

    def _ask(self, owner: Owner, made_by: dt.datetime) -> str | None:
        """Ask for one account and keep the answer; return what stands against it, None if nothing does."""
        try:
            account = _Account.model_validate(self.client.fetch(self.client.user_url(owner.login)).body)
        except (Rejected, ValidationError):
            return UNKNOWN
        if account.id != owner.id:
            return UNKNOWN  # the name is another's by now
        with self.engine.begin() as conn:
            save_owner(conn, account.id, owner.login, account.created_at)
        return YOUNG if account.created_at > made_by else None
