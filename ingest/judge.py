"""The judgement of one file: the same function for the worker and for `codelupe ingest explain`."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sourcecode.filters import judge
from sourcecode.licences import Licence, file_licence, is_allowed
from sourcecode.limits import Limits
from sourcecode.scores import SCORER_VERSION, score

# What states a licence stands at the top; so much of a file tells, without decoding the rest.
_TOP_BYTES = 8_000
NO_LICENCE = Licence(None, "none stated")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of a file; of a refused one the reason, and of an accepted one the score (0 to 100)."""

    path: str
    language: str | None
    accepted: bool
    reason: str | None = None
    detail: str | None = None
    score: float | None = None
    components: dict[str, float] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    licence: str | None = None
    licence_evidence: str = ""
    text: str | None = None
    num_chars: int = 0
    num_lines: int = 0
    redacted: dict[str, int] = field(default_factory=dict)
    redactions: tuple[str, ...] = ()

    def to_score_detail(self) -> dict[str, Any]:
        """Return what is stored of how the score came about, what says the licence, and what private was replaced."""
        redacted = {"redacted": self.redacted} if self.redacted else {}
        evidence = {"licence": self.licence_evidence}
        return {"components": self.components, "details": self.details, **evidence, **redacted}

    def to_json(self) -> dict[str, Any]:
        """Return the report of `codelupe ingest explain --json`, without the text."""
        return {
            "path": self.path,
            "language": self.language,
            "accepted": self.accepted,
            "reason": self.reason,
            "detail": self.detail,
            "score": self.score,
            "components": self.components,
            "details": self.details,
            "licence": self.licence,
            "licence_evidence": self.licence_evidence,
            "num_chars": self.num_chars,
            "num_lines": self.num_lines,
            "redacted": self.redacted,
            "redactions": list(self.redactions),
            "scorer_version": SCORER_VERSION,
        }


def judge_file(
    path: str,
    data: bytes,
    limits: Limits,
    *,
    is_executable: bool,
    licence: Licence = NO_LICENCE,
    allowed: Collection[str] | None = None,
) -> Judgement:
    """Judge a file by its path in its repository, its bytes and mode; its own licence goes before its folder's.

    Where the licences that are allowed are given, it must be under one of them.
    """
    licence = file_licence(data[:_TOP_BYTES].decode(errors="replace")) or licence
    if allowed is not None and not is_allowed(licence.expression, allowed):
        return _refuse(path, None, "licence", f"{licence.expression or 'no licence'} ({licence.evidence})", licence)
    verdict = judge(path, data, limits, is_executable=is_executable)
    if verdict.text is None or verdict.tree is None or verdict.language is None:
        return _refuse(path, verdict.language, verdict.reason, verdict.detail, licence)
    result = score(verdict.language, verdict.text, verdict.tree)
    return Judgement(
        path=path,
        language=verdict.language,
        accepted=True,
        score=result.total,
        components=result.components,
        details=result.details,
        licence=licence.expression,
        licence_evidence=licence.evidence,
        text=verdict.text,
        num_chars=len(verdict.text),
        num_lines=verdict.text.count("\n") + (not verdict.text.endswith("\n")),
        redacted=verdict.redacted,
        redactions=verdict.redactions,
    )


def _refuse(path: str, language: str | None, reason: str | None, detail: str | None, licence: Licence) -> Judgement:
    return Judgement(
        path=path,
        language=language,
        accepted=False,
        reason=reason,
        detail=detail,
        licence=licence.expression,
        licence_evidence=licence.evidence,
    )
