"""Children without a start of their own: one process has imported what they need and forks each of them.

An interpreter with the grammars takes half a second of processor time to start, as much as judging a small repository
takes. `python -m ingest.nursery` takes it once for a worker. It runs nothing of a source itself; what it forks has an
environment, a folder, pipes and a process group of its own before it reads its job, and enters the box like any other.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

# What is read when the interpreter and its libraries start; the rest of a child's environment is its own.
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
_MAX_REQUEST_BYTES = 1 << 17
_POLL_S = 0.01


class Nursling:
    """A child of the nursery, as its worker holds it. Its pipes are unbuffered."""

    def __init__(self, nursery: "Nursery", pid: int, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self._nursery, self.pid, self.stdin, self.stdout = nursery, pid, stdin, stdout
        self._is_reaped = False

    def await_end(self, *, timeout_s: float) -> int | None:
        """Return the exit status of a child that is about to end, minus the signal that killed it; None if it lives on.

        It is not reaped: until `kill` has done that, the number of its process group belongs to nobody else.
        """
        until = time.monotonic() + timeout_s
        while (status := self._nursery.ask({"look": self.pid})) is None and time.monotonic() < until:
            time.sleep(_POLL_S)
        return status

    def kill(self) -> None:
        """Kill the child and everything that it has started; done twice it does nothing."""
        if not self._is_reaped:
            self._is_reaped = True
            # The group outlives its leader while a git process runs, also a leader that has died by itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            while self._nursery.ask({"reap": self.pid}) is None:
                time.sleep(_POLL_S)
        self.stdin.close()
        self.stdout.close()


class Nursery:
    """The worker's side: starts the process when the first child is wanted, and again when it is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._link: socket.socket | None = None
        self._finalizer: Callable[[], object] = lambda: None

    def close(self) -> None:
        """End the process, which does not wait for its children: those end when their pipes do."""
        with self._lock:
            self._close()

    def start(self, environment: Mapping[str, str], folder: Path, log: IO[bytes]) -> Nursling:
        """Start a child that runs `ingest.child` in a folder, with nothing but this environment.

        Raises:
            OSError: the nursery cannot be started.
        """
        (child_in, stdin), (stdout, child_out) = os.pipe(), os.pipe()
        request = {"start": dict(environment), "folder": str(folder)}
        try:
            pid = self.ask(request, (child_in, child_out, log.fileno()))
        except OSError:
            os.close(stdin)
            os.close(stdout)
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
        assert pid is not None  # noqa: S101 - a start is answered by a pid
        return Nursling(self, pid, os.fdopen(stdin, "wb", buffering=0), os.fdopen(stdout, "rb", buffering=0))

    def ask(self, request: Mapping[str, Any], fds: tuple[int, ...] = ()) -> int | None:
        """Return the nursery's answer. Of a child whose nursery is gone nobody knows more than that it was killed.

        Raises:
            OSError: it cannot be started, or does not start the child.
        """
        with self._lock:
            if "start" not in request:
                answer = self._try(request, fds)
                return -signal.SIGKILL if answer is None else answer["is"]
            for _ in range(2):
                if self._link is None:
                    self._open()
                if (answer := self._try(request, fds)) is not None:
                    return int(answer["is"])
        raise ChildProcessError("the process that starts children ends at once; its own words are above")

    def _try(self, request: Mapping[str, Any], fds: tuple[int, ...]) -> dict[str, Any] | None:
        """Return the answer, None when there is nobody to give one."""
        if self._link is None:
            return None
        try:
            socket.send_fds(self._link, [json.dumps(request).encode()], fds)
            if answer := self._link.recv(_MAX_REQUEST_BYTES):
                return dict(json.loads(answer))
        except (BrokenPipeError, ConnectionResetError):
            pass
        self._close()
        return None

    def _close(self) -> None:
        self._finalizer()
        self._link = None

    def _open(self) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", "ingest.nursery", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
            )
        self._finalizer = weakref.finalize(self, _end, self._link, process)


def _end(link: socket.socket, process: subprocess.Popen[bytes]) -> None:
    link.close()
    process.wait()


def main() -> None:
    """Load what a child needs, then fork one whenever the worker asks for it, until the worker is gone."""
    link = socket.socket(fileno=int(sys.argv[1]))
    _load()
    # What is there now is there for good: a child that looked through it for garbage would have to copy it.
    gc.collect()
    gc.freeze()
    while True:
        request, fds, _, _ = socket.recv_fds(link, _MAX_REQUEST_BYTES, 3)
        if not request:
            os._exit(0)
        with contextlib.suppress(BrokenPipeError):
            link.send(json.dumps({"is": _answer(json.loads(request), fds)}).encode())
        for fd in fds:
            os.close(fd)


def _load() -> None:
    """Load what children need of any source."""
    import ingest.child  # noqa: F401 - for those who are forked; the worker's side needs nothing of it
    from sourcecode.contamination import BadList, load_list
    from sourcecode.grammars import load_grammar
    from sourcecode.languages import LANGUAGES

    for language in (*LANGUAGES, "tsx"):
        load_grammar(language)
    # A child that needs the list says what is wrong with it.
    with contextlib.suppress(BadList):
        load_list()


def _answer(request: Mapping[str, Any], fds: list[int]) -> int | None:
    if "start" in request:
        return _fork(request, fds)
    how = os.WEXITED | os.WNOHANG | (os.WNOWAIT if "look" in request else 0)
    end = os.waitid(os.P_PID, request.get("look") or request["reap"], how)
    if end is None:
        return None
    return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


def _fork(request: Mapping[str, Any], fds: list[int]) -> int:
    """Return the number of the child and of its process group, which it is in on both sides of the fork."""
    if not (pid := os.fork()):
        try:
            os.setpgid(0, 0)
            _become(request, fds)
        except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on as the nursery
            traceback.print_exc()
        finally:
            os._exit(1)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)
    return pid


def _become(request: Mapping[str, Any], fds: list[int]) -> None:
    from ingest import child

    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["start"])
    os.chdir(request["folder"])
    child.main()


if __name__ == "__main__":
    main()
