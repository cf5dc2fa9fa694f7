"""The box around a child that handles hostile content: its environment, its limits, its process group, its end."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

# What the operator may have set so that git reaches its hosts; nothing else of the environment goes in.
_PASSED = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO")
_PROTOCOLS = {"https": "https", "http": "http:https"}
_MAX_OPEN_FILES = 256
# Address space as a multiple of memory: mapped files, and what is reserved and never used.
_ADDRESSES = 4
# Git recurses into trees: some thousand folders deep is enough, and one of 100,000 ends it in a second, not in 16.
_STACK_BYTES = 2 * 1024 * 1024

# git's own advice for repositories of strangers, as configuration: GitPython refuses such options on the command line.
_GIT_CONFIG = {
    "transfer.fsckObjects": "true",
    "fetch.fsckObjects": "true",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "false",
    # Above it a file is streamed: in case that a server does not know the filter that leaves such files out.
    "core.bigFileThreshold": "1m",
    # What git keeps in memory to be faster, instead of all that a large pack could fill.
    "core.deltaBaseCacheLimit": "16m",
    "core.packedGitWindowSize": "8m",
    "core.packedGitLimit": "32m",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "submodule.recurse": "false",
    "transfer.bundleURI": "false",
    "credential.helper": "",
    "credential.interactive": "false",
    # The first request (refresh.py) has found out where the repository is.
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "pack.threads": "1",
    "index.threads": "1",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
    "protocol.version": "2",
}


def make_environment(source: str, scratch: Path) -> dict[str, str]:
    """Return the whole environment of the child and its git: for one source, and for nothing else on this machine."""
    scheme = source.partition("://")[0] if "://" in source else "file"
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(scratch),
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(_write_local_config(source, scratch)) if scheme == "file" else "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        # Nobody is asked, and no empty name and password are sent either.
        "GIT_ASKPASS": "",
        "GIT_ALLOW_PROTOCOL": _PROTOCOLS.get(scheme, "file"),
        "GIT_TEMPLATE_DIR": str(scratch / "template"),
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        # Pools of threads, and of memory for each thread, take address space and have nothing to do here.
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "GIT_CONFIG_COUNT": str(len(_GIT_CONFIG)),
    }
    for number, (key, value) in enumerate(_GIT_CONFIG.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment | _pass_on(os.environ)


def start_child(module: str, environment: Mapping[str, str], scratch: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start `python -m module` as the leader of a process group of its own, its pipes unbuffered."""
    return subprocess.Popen(
        [sys.executable, "-I", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=scratch,
        env=dict(environment),
        start_new_session=True,
        bufsize=0,
    )


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and everything that it has started, and take its exit status; done twice it does nothing."""
    if child.returncode is None:
        # The group outlives its leader while a git process runs, also a leader that has died by itself; as long as we
        # have not waited, its number is ours.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def enter_box(*, cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Set the limits of this process and of all that it starts. Called in the child, before it touches the source.

    Two such processes at work stay below `memory_bytes` together; packs that git maps are no memory, only addresses.
    """
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes // 2, memory_bytes // 2))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES * memory_bytes, _ADDRESSES * memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_OPEN_FILES, _MAX_OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_STACK, (_STACK_BYTES, _STACK_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Blocked (an ignored one is restored by whoever starts git) it lets git say that a file is too large.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGXFSZ})
    os.umask(0o077)
    os.nice(5)


def squeeze(pid: int) -> None:
    """Halve the memory of a process that we have started and of what it starts: git talks to a server by three."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[1] // 2
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has ended already
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
        # On a busy machine git was quicker than we: what it started before has the whole limit.
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                squeeze(int(child))


def die_with_parent(control: IO[bytes]) -> None:
    """Kill our whole process group as soon as the worker's end of the pipe closes, however the worker ended."""

    def watch() -> None:
        while control.read(1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _pass_on(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for key in _PASSED for name in (key, key.upper()) if name in environment}


def _write_local_config(source: str, scratch: Path) -> Path:
    """Let git serve a local repository that belongs to somebody else, with the size filter. Nothing else reads it."""
    quoted = source.replace("\\", "\\\\").replace('"', '\\"')
    path = scratch / "gitconfig"
    path.write_text(
        f'[safe]\n\tdirectory = "{quoted}"\n\tdirectory = "{quoted}/.git"\n[uploadpack]\n\tallowFilter = true\n'
        # Of the git that packs it for us: it is told nothing by our environment.
        # A pack for one visit need not be small.
        "[pack]\n\tthreads = 1\n\twindowMemory = 16m\n\tdeltaCacheSize = 16m\n\twindow = 0\n\tcompression = 1\n"
    )
    return path
