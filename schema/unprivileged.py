"""Children that die with this process and that do not see themselves as root."""

import ctypes
import os
import signal
from collections.abc import Callable

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_UID_INSIDE = 1000

# Loaded before any fork: after one, only calls into it are safe.
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signum: signal.Signals) -> Callable[[], None]:
    """Build a `preexec_fn`: leave root, then be sent `signum` when the calling thread ends.

    Call it from the main thread: the kernel watches the thread that forked, not its process. Where user
    namespaces are forbidden, the caller of `subprocess` sees subprocess.SubprocessError.
    """
    parent = os.getpid()

    def prepare() -> None:
        if os.geteuid() == 0:
            _leave_root()
        # After the change of user, which clears it.
        _check(_libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0))
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return prepare


def _leave_root() -> None:
    """Enter a user namespace in which root's files are those of an ordinary user: PostgreSQL refuses to run as root.

    Nothing outside changes: no user is made, no file changes owner or mode.
    """
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER))
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{_UID_INSIDE} {uid} 1"),
        ("gid_map", f"{_UID_INSIDE} {gid} 1"),
    ):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(fd, text.encode())
        os.close(fd)


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
