"""What the steps of a crawl share: its parts, what it holds, and what it has done so far."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa

from ingest.alive import Alive, say_nothing
from ingest.config import IngestSettings
from ingest.github.client import Client
from ingest.github.clock import Clock
from ingest.github.plans import Plan
from ingest.github.score import SCORE_VERSION
from ingest.github.terms import load_terms
from ingest.opt_outs import OptOutFiles
from schema.crawl import WindowClaim, renew_window

_RENEWALS_PER_LEASE = 8  # every 15 s of a wait: well before a lease of two minutes ends


# The settings by which a found repository is judged.
_RULES = {
    *("min_stars", "min_forks", "min_repository_score", "min_repository_age_days", "min_owner_age_days"),
    *("max_repository_kb", "force_include", "force_exclude"),
}


@dataclass(slots=True)
class Tally:
    """What a crawl has done so far."""

    repositories: Counter[str] = field(default_factory=Counter)  # by outcome
    reasons: Counter[str] = field(default_factory=Counter)  # of the refused
    num_pages: int = 0
    num_unchanged: int = 0  # pages of them that were still the same


@dataclass(slots=True)
class Crawler:
    """What every step needs; `show` hears of the windows by state after each page."""

    engine: sa.Engine
    client: Client
    plan: Plan
    settings: IngestSettings
    clock: Clock
    show: Callable[[dict[str, int]], None] = lambda _counts: None
    alive: Alive = say_nothing
    tally: Tally = field(default_factory=Tally)
    claim: WindowClaim | None = None  # the one that is held, for who renews it during a wait
    kept_at: float = 0.0  # when its lease was last renewed
    rules: str = field(init=False)  # stands for all that a repository is judged by
    opt_outs: OptOutFiles = field(init=False)

    def __post_init__(self) -> None:
        """Note by which rules this crawler judges."""
        judged_by = self.settings.model_dump(include=_RULES, mode="json")
        text = json.dumps([judged_by, SCORE_VERSION, [term.text for term in load_terms()]], sort_keys=True)
        self.rules = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.opt_outs = OptOutFiles(self.engine, self.settings.opt_out)

    def keep_claim(self) -> None:
        """Hold on to the window; called in every slice of a wait."""
        self.alive()
        if self.claim is not None and self.clock.now() - self.kept_at >= self.settings.lease_s / _RENEWALS_PER_LEASE:
            self.kept_at = self.clock.now()
            with self.engine.begin() as conn:
                renew_window(conn, self.claim, lease_s=self.settings.lease_s)
