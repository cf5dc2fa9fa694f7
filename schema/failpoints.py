"""Named places where a test can make a process die or a call fail. Unarmed, they cost a look into an empty dict.

Armed by `CODELUPE_FAILPOINTS="publish.after_rename=kill,checkpoint.before_rename=enospc@3"`: the third hit of the
second one fails. Only the `tiny` profile can be armed.
"""

import errno
import os
import re
import signal
from collections.abc import Mapping

ENVIRONMENT_VARIABLE = "CODELUPE_FAILPOINTS"
NAMES = frozenset(
    {
        "ingest.before_scratch",
        "ingest.before_save",
        "ingest.after_save",
        "ingest.before_finish",
        "rescore.before_save",
        "rescore.after_save",
        "crawl.before_commit",
        "run.after_claim",
        "run.before_training",
        "run.after_training",
        "run.after_evaluation",
        "run.before_release",
        "run.after_release",
        "probe.after_pass",
        "file.before_sync",
        "publish.before_copy",
        "publish.before_rename",
        "publish.after_rename",
        "publish.before_promote",
        "publish.after_promote",
        "publish.before_symlink",
        "publish.after_symlink",
        "state_file.before_rename",
        "checkpoint.before_write",
        "checkpoint.before_rename",
        "checkpoint.after_rename",
    }
)
KINDS = ("kill", "raise", "enospc")
_PROFILE = "tiny"
_ENTRY = re.compile(r"(?P<name>[a-z_.]+)=(?P<kind>[a-z]+)(@(?P<nth>[1-9][0-9]*))?")

# name: (kind, hits left until it strikes)
_armed: dict[str, tuple[str, int]] = {}


class FailpointsRefused(Exception):
    """The failpoints asked for cannot be armed here."""


class FailpointHit(Exception):
    """An armed failpoint of kind `raise`."""


def arm(environ: Mapping[str, str], profile: str) -> None:
    """Arm what the environment asks for, nothing if it is silent; each new process has to.

    Raises:
        FailpointsRefused: another profile than `tiny`, or a name, kind or syntax that does not exist.
    """
    asked = environ.get(ENVIRONMENT_VARIABLE, "")
    if asked and profile != _PROFILE:
        msg = f"{ENVIRONMENT_VARIABLE} is for tests of the profile {_PROFILE!r}, not for {profile!r}: unset it"
        raise FailpointsRefused(msg)
    _armed.clear()
    _armed.update(_parse(entry.strip()) for entry in asked.split(",") if entry.strip())


def hit(name: str) -> None:
    """Pass, or fail as armed: `kill` is SIGKILL to this process, `enospc` a full disk."""
    if not _armed or name not in _armed:
        return
    kind, hits_left = _armed[name]
    _armed[name] = (kind, hits_left - 1)
    if hits_left == 1:
        _strike(name, kind)


def _strike(name: str, kind: str) -> None:
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "enospc":
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (failpoint {name})")
    raise FailpointHit(name)


def _parse(entry: str) -> tuple[str, tuple[str, int]]:
    match = _ENTRY.fullmatch(entry)
    if match is None or match["name"] not in NAMES or match["kind"] not in KINDS:
        msg = (
            f"{ENVIRONMENT_VARIABLE}: {entry!r} is not name=kind or name=kind@nth with a kind of {', '.join(KINDS)} "
            f"and a name of {', '.join(sorted(NAMES))}"
        )
        raise FailpointsRefused(msg)
    return match["name"], (match["kind"], int(match["nth"] or 1))
