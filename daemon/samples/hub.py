"""The files of a base model: in a folder, or fetched from the hub; and what to say where they are not to be had."""

import os
import re
from pathlib import Path
from typing import Any

_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")


class BaseError(Exception):
    """A file of a base model is not to be had; the message says of which base, from where, and what to set."""


def find_file(base: str, filename: str, revision: str | None, *, local_only: bool = False) -> Path:
    """Return a file of a base: in the folder of that name, else in the hub's cache or fetched from the hub.

    Raises:
        BaseError: it is in none of them.
    """
    folder = Path(base).expanduser()
    if not (folder.is_dir() or is_folder(base)):
        return _fetch(base, filename, revision, local_only=local_only)
    if not (folder / filename).is_file():
        raise BaseError(describe_missing(base, revision, f"{folder / filename} is not there"))
    return folder / filename


def is_folder(base: str) -> bool:
    """Whether the name of a base means a folder, even one that is not there."""
    return base.startswith(("/", ".", "~"))


def _fetch(name: str, filename: str, revision: str | None, *, local_only: bool) -> Path:
    # Imported here: it takes a third of a second, and most commands need no hub.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # that of the client it was made with

    options: dict[str, Any] = {"revision": revision, "local_files_only": local_only}
    try:
        return Path(hf_hub_download(name, filename, **options))
    except (HTTPError, OSError, ValueError) as error:
        raise BaseError(describe_missing(name, revision, words_of(error))) from error


def words_of(error: BaseException) -> str:
    """Return in one line what kind of error it is, and what the error at its root says."""
    names = [type(error).__name__]
    while error.__cause__ is not None:
        error = error.__cause__
    names += [type(error).__name__] if type(error).__name__ not in names else []
    return ": ".join([*names, next(iter(str(error).strip().splitlines()), "no detail")])


def describe_missing(base: str, revision: str | None, detail: str) -> str:
    """Return which base could not be loaded, why, where it was looked for, and what to set; no secret is in it."""
    named = f"base model {base!r}" + (f" at revision {revision!r}" if revision else "")
    if Path(base).expanduser().is_dir() or is_folder(base):
        looked, remedy = (
            f"in the folder {base}",
            "Set CODELUPE_BASE_MODEL to a folder that holds it, or a name on the hub",
        )
    else:
        looked = f"in the hub's cache {_describe_hub()}"
        remedy = (
            "Set CODELUPE_BASE_MODEL to a folder or a name that is there, CODELUPE_BASE_REVISION to a commit of it, "
            "HF_TOKEN where it is gated or private, HF_ENDPOINT to reach a mirror; "
            f"or fetch it first: hf download {base}"
        )
    return _without_secrets(f"{named} could not be loaded: {detail}. Looked {looked}. {remedy}.")


def _describe_hub() -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return f"({constants.HF_HUB_CACHE}) alone, for HF_HUB_OFFLINE is set"
    return f"({constants.HF_HUB_CACHE}), then at {constants.ENDPOINT}"


def _without_secrets(text: str) -> str:
    token = os.environ.get("HF_TOKEN")
    return _USER_INFO.sub("", text.replace(token, "…") if token else text)
