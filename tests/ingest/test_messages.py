"""What the worker takes from a child that hostile content may have taken over."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from ingest.messages import FAILURES, FILE_REASONS, STAGES, Accepted, Ended, Failed, Listed, Refused, read_message
from sourcecode.filters import REASONS

LISTED = {
    "event": "listed",
    "head": None,
    "num_entries": 9,
    "num_candidates": 5,
    "num_units": {"repository": 1, "top": 3, "directory": 2, "file": 5},
}
ENDED: dict[str, Any] = {
    "event": "ended",
    "head": None,
    "licence": None,
    "licence_evidence": "",
    "refusals": {"language": 2, "a_b": 3, "c_d": 4},
    "num_unchanged": 0,
    "num_bytes": 0,
    "vanished": [],
    "stages": {"clone": 1.5, "mine": 2.0, "yours": 0.5},
}
REFUSED = {"event": "refused", "path": "a.py", "oid": "", "num_bytes": 1, "reason": "made_up", "detail": None}
FAILED = {"event": "failed", "reason": "made_up", "detail": "", "is_permanent": True}
ACCEPTED: dict[str, Any] = {
    "event": "accepted",
    "path": "a.py",
    "oid": "",
    "num_bytes": 1,
    "language": "python",
    "text": "x",
    "score": 50,
    "detail": {},
    "scorer_version": 1,
    "licence": None,
    "bands": [-(2**63), 2**63 - 1, *range(12)],
}


def read(message: dict[str, Any]) -> Any:
    return read_message(json.dumps(message).encode())


def test_words_that_nobody_knows_become_one() -> None:
    ended, refused, failed = read(ENDED), read(REFUSED), read(FAILED)
    assert isinstance(ended, Ended)
    assert ended.refusals == {"language": 2, "other": 7}
    assert ended.stages == {"clone": 1.5, "other": 2.5}
    assert isinstance(refused, Refused)
    assert isinstance(failed, Failed)
    assert (refused.reason, failed.reason) == ("other", "other")


def test_words_that_are_known_stay() -> None:
    assert set(REASONS) < FILE_REASONS
    for reason in FILE_REASONS:
        assert read(REFUSED | {"reason": reason}).reason == reason
    for reason in FAILURES:
        assert read(FAILED | {"reason": reason}).reason == reason
    stages = dict.fromkeys(STAGES, 1.0)
    assert read(ENDED | {"stages": stages}).stages == stages


@pytest.mark.parametrize(
    "message",
    [
        LISTED | {"num_units": {"galaxy": 1}},
        LISTED | {"num_units": {"repository": 2, "file": 5}},
        LISTED | {"num_units": {"directory": 6, "file": 5}},
        LISTED | {"num_units": {"top": 40}},
        LISTED | {"num_units": {"file": 6}},
        LISTED | {"num_units": {"file": -1}},
        LISTED | {"num_candidates": 10},
        ENDED | {"refusals": {"language": -1}},
        ENDED | {"stages": {"clone": -1.0}},
        ENDED | {"num_bytes": -1},
        REFUSED | {"num_bytes": -1},
        ACCEPTED | {"bands": [1] * 13},
        ACCEPTED | {"bands": [1] * 15},
        ACCEPTED | {"bands": [2**63] * 14},
        ACCEPTED | {"bands": [-(2**63) - 1] * 14},
        ACCEPTED | {"bands": [0.5] * 14},
        ACCEPTED | {"bands": ["1"] * 14},
        ACCEPTED | {"bands": None},
    ],
)
def test_figures_that_cannot_be_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read(message)


def test_figures_that_can_be_are_taken() -> None:
    listed = read(LISTED)
    assert isinstance(listed, Listed)
    assert listed.num_units == LISTED["num_units"]


@pytest.mark.parametrize("bands", [ACCEPTED["bands"], []], ids=["fourteen", "none"])
def test_fourteen_bands_of_64_bits_or_none_are_taken(bands: list[int]) -> None:
    accepted = read(ACCEPTED | {"bands": bands})
    assert isinstance(accepted, Accepted)
    assert accepted.bands == bands
