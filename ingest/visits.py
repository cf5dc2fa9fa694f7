"""What the child does with one source: list, gate, read, judge, report. No decision here outlives the visit."""

import json
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from ingest.entries import Entry, Tree
from ingest.failures import explain_failure
from ingest.judge import Judgement, judge_file
from ingest.licensing import Licences
from ingest.messages import Accepted, Ended, Listed, Message, Refused
from ingest.shares import Helper, Shares, end_part
from ingest.units import count_units
from sourcecode.filters import REASONS, decode, judge_size
from sourcecode.fingerprints import blob_oid
from sourcecode.languages import detect_language
from sourcecode.licences import is_allowed
from sourcecode.limits import Limits
from sourcecode.near_duplicates import make_bands
from sourcecode.paths import judge_path
from sourcecode.scores import SCORER_VERSION

# These are counted, not listed: a row for each picture and each text file would drown the others.
_ONLY_COUNTED = frozenset({"language"})
# These say of a path and its content what another look would say again; others, of licences and accidents, may pass.
_LASTING = frozenset(REASONS) - _ONLY_COUNTED


@dataclass(frozen=True, slots=True)
class Past:
    """What the last visit left: object ids by path, reasons of what was refused; by which rules and which licence."""

    known: dict[str, str] = field(default_factory=dict)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    by_other_rules: bool = False
    licence: str | None = None

    def find_oid(self, path: str) -> str | None:
        """Return the object id of what was judged under a path, where the verdict is one that lasts."""
        if path not in self.refused:
            return self.known.get(path)
        oid, reason = self.refused[path]
        return oid if reason in _LASTING else None


class Visit:
    """One pass over one tree; every file ends in exactly one of accepted, refused, unchanged."""

    def __init__(
        self,
        tree: Tree,
        limits: Limits,
        *,
        past: Past,
        licences: Licences,
        say: Callable[[Message], None],
        allowed: Collection[str] | None = None,
        shares: Shares | None = None,
    ) -> None:
        self._tree, self._limits, self._past, self._say = tree, limits, past, say
        self._licences, self._allowed, self._shares = licences, allowed, shares
        self._refusals: Counter[str] = Counter()
        self._num_unchanged = self._num_bytes = 0
        self.stages: dict[str, float] = {}

    def run(self) -> None:
        """Report every file, then the sum."""
        with self._stage("list"):
            entries = self._tree.list_entries()
            refusals = [self._gate(entry) for entry in entries]
            candidates = [entry for entry, refusal in zip(entries, refusals, strict=True) if refusal is None]
            units = count_units(entry.path for entry in candidates)
        self._say(
            Listed(head=self._tree.head, num_entries=len(entries), num_candidates=len(candidates), num_units=units)
        )
        with self._stage("licence"):
            self._licences.read(entries, [entry.path for entry in candidates], self._read_text)
        num = self._count_processes(candidates)
        if self._shares is None or num == 1:
            for entry in candidates:
                self._look_at(entry)
        else:
            self._share_out(candidates, num, self._shares)
        for entry, refusal in zip(entries, refusals, strict=True):
            if refusal is not None:
                self._refuse(entry, entry.oid, *refusal)
        self._say(self._sum_up(entries))

    def _gate(self, entry: Entry) -> tuple[str, str | None] | None:
        """Return reason and detail against what need not be read: by kind, path and size."""
        if entry.reason:
            return entry.reason, None
        refusal = judge_path(entry.path, self._limits, is_executable=entry.is_executable)
        return refusal or judge_size(entry.num_bytes, self._limits)

    def _count_processes(self, candidates: Sequence[Entry]) -> int:
        if self._shares is None:
            return 1
        changed = (entry for entry in candidates if not self._stands(entry.path, entry.oid))
        return self._shares.count_processes(sum(entry.num_bytes for entry in changed))

    def _share_out(self, candidates: Sequence[Entry], num: int, shares: Shares) -> None:
        """Let several processes look at the files; what they say is passed on in the order of the files."""
        helpers = [Helper(partial(self._help, candidates[first::num]), num) for first in range(num)]
        for number in range(len(candidates)):
            for line in helpers[number % num].read_part():
                shares.forward(line)
        for helper in helpers:
            refusals, num_unchanged, num_bytes, stages = json.loads(b"".join(helper.read_part()))
            self._refusals.update(refusals)
            self._num_unchanged += num_unchanged
            self._num_bytes += num_bytes
            self.stages = {name: self.stages.get(name, 0.0) + stages.get(name, 0.0) for name in {*self.stages, *stages}}
            helper.close()

    def _help(self, share: Sequence[Entry], pipe: BinaryIO) -> None:
        """Look at a share of the files, in a process of its own."""

        def say(message: Message) -> None:
            pipe.write(message.model_dump_json().encode() + b"\n")

        self._say = say
        self.stages = {}
        try:
            self._tree.reopen()
            for entry in share:
                self._look_at(entry)
                end_part(pipe)
        except Exception as error:  # noqa: BLE001 - the edge of this process
            say(explain_failure(error))
            return
        pipe.write(json.dumps([self._refusals, self._num_unchanged, self._num_bytes, self.stages]).encode() + b"\n")
        end_part(pipe)

    def _look_at(self, entry: Entry) -> None:
        if self._pass_over(entry.path, entry.oid):
            return
        with self._stage("read"):
            data = self._tree.read(entry)
        if data is None:
            self._refuse(entry, entry.oid, "unreadable", None)
            return
        oid = entry.oid or blob_oid(data)
        if self._pass_over(entry.path, oid):
            return
        self._num_bytes += len(data)
        try:
            with self._stage("judge"):
                judgement = judge_file(
                    entry.path,
                    data,
                    self._limits,
                    is_executable=entry.is_executable,
                    licence=self._licences.find(entry.path),
                    allowed=self._allowed,
                )
            with self._stage("compare"):
                bands = make_bands(judgement.text) if judgement.text else []
        except Exception:  # noqa: BLE001 - the edge of the file loop: one bad file must not cost its repository
            traceback.print_exc()
            self._refuse(entry, oid, "exception", "the judge failed; the log has the place")
            return
        self._report(entry, oid, judgement, bands)

    def _pass_over(self, path: str, oid: str) -> bool:
        """Count a file whose last verdict holds as what it was; return whether it does."""
        if not self._stands(path, oid):
            return False
        if path in self._past.refused:
            self._refusals[self._past.refused[path][1]] += 1
        else:
            self._num_unchanged += 1
        return True

    def _stands(self, path: str, oid: str) -> bool:
        """Say whether the last visit's verdict on a file holds: nothing of file, rules and licence has changed.

        Under a folder's licence that is not allowed the file's own decides, for which it must be read.
        """
        if not oid or self._past.find_oid(path) != oid or self._past.by_other_rules:
            return False
        if self._licences.root.expression != self._past.licence:
            return False
        return self._allowed is None or is_allowed(self._licences.find(path).expression, self._allowed)

    def _report(self, entry: Entry, oid: str, judgement: Judgement, bands: list[int]) -> None:
        if judgement.text is None or judgement.language is None or judgement.score is None:
            self._refuse(entry, oid, judgement.reason or "", judgement.detail)
            return
        with self._stage("report"):
            self._say(
                Accepted(
                    path=entry.path,
                    oid=oid,
                    num_bytes=entry.num_bytes,
                    language=judgement.language,
                    text=judgement.text,
                    score=judgement.score,
                    detail=judgement.to_score_detail(),
                    scorer_version=SCORER_VERSION,
                    licence=judgement.licence,
                    bands=bands,
                )
            )

    def _refuse(self, entry: Entry, oid: str, reason: str, detail: str | None) -> None:
        self._refusals[reason] += 1
        # A symbolic link or a picture is no loss; what might have been code is listed with its reason, and what was
        # listed in an earlier version, which leaves by this.
        is_code = detect_language(entry.path, languages=self._limits.languages) or entry.path.endswith("/")
        was_listed = entry.path in self._past.known or entry.path in self._past.refused
        is_listed = was_listed or (reason not in _ONLY_COUNTED and is_code)
        if is_listed:
            self._say(
                Refused(path=entry.path, oid=oid, num_bytes=entry.num_bytes, reason=reason, detail=(detail or "")[:500])
            )

    def _read_text(self, entry: Entry) -> str:
        try:
            return decode(self._tree.read(entry) or b"")
        except UnicodeDecodeError:
            return ""

    def _sum_up(self, entries: Sequence[Entry]) -> Ended:
        listed = {entry.path for entry in entries}
        past = self._past.known.keys() | self._past.refused.keys()
        # What lies below a folder that could not be looked into is not gone.
        hidden = tuple(entry.path for entry in entries if entry.reason == "unreadable" and entry.path.endswith("/"))
        return Ended(
            head=self._tree.head,
            licence=self._licences.root.expression,
            licence_evidence=self._licences.root.evidence,
            refusals=dict(self._refusals),
            num_unchanged=self._num_unchanged,
            num_bytes=self._num_bytes,
            vanished=[path for path in sorted(past - listed) if not path.startswith(hidden)],
            stages={name: round(seconds, 4) for name, seconds in self.stages.items()},
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - start
