"""The licence policy: what the files of a source must be under, and what need not be cloned."""

from ingest.config import IngestSettings
from ingest.licensing import UNKNOWN
from schema.repositories import Claim
from sourcecode.licences import Licence, is_allowed


def fetch_allowed(claim: Claim, settings: IngestSettings) -> tuple[str, ...] | None:
    """Return the licences that a source's files must be under; None: any, as for what the operator names."""
    is_free = claim.origin == "operator" or settings.licence_policy == "any"
    return None if is_free else settings.allowed_licences


def judge_api_licence(claim: Claim, settings: IngestSettings) -> Licence | None:
    """Return the licence of a found repository where GitHub knows it and it is not allowed: it need not be cloned."""
    allowed, named = fetch_allowed(claim, settings), claim.api_licence or ""
    if allowed is None or claim.licence or named in UNKNOWN or is_allowed(named, allowed):
        return None
    return Licence(named, f"GitHub: {named}")
