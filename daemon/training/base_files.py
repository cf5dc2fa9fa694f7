"""The base's files, without its weights: found or fetched, and its tokenizer. No torch here."""

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from daemon.samples import BaseError, find_file, load_tokenizer
from daemon.training.child import Failed
from daemon.training.failures import classify

if TYPE_CHECKING:
    from daemon.training.model import Model


def load_base_tokenizer(job: "Model") -> Tokenizer:
    """Load the base's tokenizer; raise Failed(base_missing) as `load_base` would, only sooner."""
    find_base_file(job, "config.json")
    try:
        return load_tokenizer(job.base, job.base_revision)
    except BaseError as error:
        raise _missing(error) from error


def find_base_file(job: "Model", filename: str) -> Path:
    """Return a file of the base, fetched if need be; raise Failed(base_missing) where it is not to be had."""
    try:
        return find_file(job.base, filename, job.base_revision)
    except BaseError as error:
        raise _missing(error) from error


def _missing(error: BaseError) -> Failed:
    """Return the failure; a disk that did not take the download is the disk's."""
    cause = error.__cause__
    if cause is not None and (failure := classify(cause)).reason != "exception":
        return Failed(failure.reason, f"{error} ({failure.message})")
    return Failed("base_missing", str(error))
