"""From messages to rows: what the worker derives itself, gathers and saves in batches under its claim."""

import time
from collections import Counter
from dataclasses import dataclass, field

import sqlalchemy as sa

from ingest.config import IngestSettings
from ingest.messages import FILE_REASONS, OTHER, Accepted, Refused
from ingest.units import decide_split, make_unit
from schema.files import NewFile, RefusedFileRow, save_files
from schema.judged_again import judge_again
from schema.near_duplicates import NearRule
from schema.repositories import Claim
from sourcecode.fingerprints import content_sha256
from sourcecode.languages import LANGUAGES
from sourcecode.near_duplicates import BANDS_VERSION, similarity


@dataclass(slots=True)
class Tally:
    """What a visit stored, by (outcome, reason) as the metrics count it."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    num_rows: int = 0
    num_accepted: int = 0
    save_s: float = 0.0


class Keeper:
    """The batches of one visit: full ones are saved at once, each in a transaction of its own."""

    def __init__(
        self, engine: sa.Engine, claim: Claim, settings: IngestSettings, *, key: str, level: str, commit: str | None
    ) -> None:
        self._engine, self._claim, self._settings = engine, claim, settings
        self._key, self._level, self._commit = key, level, commit
        self._near = NearRule(threshold=settings.near_duplicate_threshold, similarity=similarity)
        self._files: list[NewFile] = []
        self._refused: list[RefusedFileRow] = []
        self.tally = Tally()

    def keep(self, message: Accepted | Refused) -> None:
        """Take one judged file; raises StaleLease when a batch is saved and the claim is lost."""
        if isinstance(message, Accepted):
            self._files.append(self._make_file(message))
            # The child's word becomes a label: only where it is one of ours.
            self.tally.languages[message.language if message.language in LANGUAGES else OTHER] += 1
        else:
            self._refused.append(_make_refusal(message))
        if len(self._files) + len(self._refused) >= self._settings.batch_rows:
            self.flush()

    def flush(self) -> None:
        """Save what has been gathered."""
        if not self._files and not self._refused:
            return
        start = time.perf_counter()
        with self._engine.begin() as conn:
            saved = save_files(conn, self._claim, self._files, self._refused, near=self._near)
            if saved.num_known or self._refused:
                judge_again(conn, self._claim, self._files, self._refused, near=self._near, verdicts=FILE_REASONS)
        self.tally.save_s += time.perf_counter() - start
        self.tally.num_accepted += len(self._files)
        self.tally.num_rows += saved.num_new + sum(saved.num_excluded.values())
        self.tally.counts.update({("new", ""): saved.num_new, ("known", ""): saved.num_known})
        self.tally.counts.update({("superseded", ""): saved.num_superseded})
        self.tally.counts.update({("excluded", reason): num for reason, num in saved.num_excluded.items()})
        self.tally.counts.update({("refused", reason): num for reason, num in saved.num_refused.items()})
        self._files, self._refused = [], []

    def _make_file(self, message: Accepted) -> NewFile:
        unit = make_unit(self._key, self._level, message.path)
        settings = self._settings
        return NewFile(
            file_path=message.path,
            commit=self._commit,
            blob_oid=message.oid,
            language=message.language,
            content=message.text,
            content_sha256=content_sha256(message.text),
            num_chars=len(message.text),
            num_lines=message.text.count("\n") + (not message.text.endswith("\n")),
            quality_score=message.score,
            score_detail=message.detail,
            scorer_version=message.scorer_version,
            licence=message.licence,
            unit=unit,
            split=decide_split(unit, train_share=settings.train_share, validation_share=settings.validation_share),
            owner=self._claim.owner or self._claim.name,
            bands=message.bands,
            bands_version=BANDS_VERSION,
        )


def _make_refusal(message: Refused) -> RefusedFileRow:
    return RefusedFileRow(message.path, message.oid, message.num_bytes, message.reason, message.detail)
