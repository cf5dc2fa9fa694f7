"""The rules that a source is judged by: which licences its files may have, what need not be cloned, and their name."""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

from ingest.config import IngestSettings
from ingest.licensing import UNKNOWN
from schema.repositories import Claim
from schema.rescans import add_licences
from sourcecode.licences import Licence, is_allowed
from sourcecode.limits import RULES_VERSION
from sourcecode.scores import SCORER_VERSION

ORIGINS = ("operator", "crawler")
_NAME_CHARS = 16


def fetch_allowed(claim: Claim, settings: IngestSettings) -> tuple[str, ...] | None:
    """Return the licences that a source's files must be under; None: any, as for what the operator names."""
    return _allow(claim.origin, settings)


def judge_api_licence(claim: Claim, settings: IngestSettings) -> Licence | None:
    """Return the licence of a found repository where GitHub knows it and it is not allowed: it need not be cloned."""
    allowed, named = fetch_allowed(claim, settings), claim.api_licence or ""
    if allowed is None or claim.licence or named in UNKNOWN or is_allowed(named, allowed):
        return None
    return Licence(named, f"GitHub: {named}")


def name_rules(claim: Claim, settings: IngestSettings) -> str:
    """Return the name of all that decides about a source's files but the files themselves."""
    return add_licences(name_settings(claim.origin, settings), api=claim.api_licence, stated=claim.licence)


def name_settings(origin: str, settings: IngestSettings) -> str:
    """Return a fingerprint of what the settings, and the versions of the rules, say of a source of this origin."""
    limits = dataclasses.asdict(settings.limits)
    if (file := settings.benchmark_list) is not None:
        status = file.stat()
        limits["benchmark_list"] = _digest(file, status.st_mtime_ns, status.st_size)
    rules = {"limits": limits, "allowed": _allow(origin, settings), "versions": (RULES_VERSION, SCORER_VERSION)}
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:_NAME_CHARS]


def _allow(origin: str, settings: IngestSettings) -> tuple[str, ...] | None:
    return None if origin == "operator" or settings.licence_policy == "any" else settings.allowed_licences


@functools.lru_cache(maxsize=4)
def _digest(file: Path, _changed_ns: int, _num_bytes: int) -> str:
    """Return the digest of a file, read again when its time or size is another."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
