"""The whole compose stack on the engine that DOCKER_HOST names, under a project name of its own."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.deploy.stack_file import ONE_SHOT, ROOT

_BUILD_TIMEOUT_S = 3600
_TIMEOUT_S = 600
_LOOK_EVERY_S = 2.0
_TARGETS = {"codelupe-control": "control", "codelupe-trainer": "trainer"}


class Stack:
    """Builds, starts and asks the stack; what it makes below `folder` are the passwords and the .env file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = f"codelupe-test-{os.getpid()}"
        self.tag = "test"
        script = ROOT / "deploy/compose/make_secrets.py"
        subprocess.run([sys.executable, str(script)], cwd=folder, check=True, capture_output=True)
        settings = {
            "CODELUPE_SECRETS": folder / "secrets",
            "COMPOSE_PROFILES": "cpu,crawl",
            "CODELUPE_PROFILE": "tiny",
            "CODELUPE_VERSION": self.tag,
            **{f"{name}_PUBLISHED_PORT": 0 for name in ("CODELUPE", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")},
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def docker(self, *words: str, timeout_s: float = _TIMEOUT_S) -> str:
        """Run `docker WORDS…`; return what it prints."""
        done = subprocess.run(
            ["docker", *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=timeout_s,
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
        )
        assert done.returncode == 0, f"docker {shlex.join(words)}: {(done.stdout + done.stderr)[-4000:]}"
        return done.stdout

    def compose(self, *words: str, given: str | None = None, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run docker compose with this project's files and settings."""
        files = ("--file", "docker-compose.yml", "--file", "tests/stack/quick.yml")
        place = ("--project-name", self.project, "--project-directory", ".", "--env-file", str(self.folder / ".env"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CODELUPE_", "COMPOSE_"))}
        done = subprocess.run(
            [*_compose_command(), *files, *place, *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            input=given,
            timeout=_TIMEOUT_S,
            env=kept,
        )
        assert done.returncode == 0 or not check, f"compose {shlex.join(words)}: {(done.stdout + done.stderr)[-4000:]}"
        return done

    def build(self) -> None:
        """Build both images."""
        flags = shlex.split(os.environ.get("BUILD_FLAGS", ""))
        for image, target in _TARGETS.items():
            name = f"{image}:{self.tag}"
            self.docker("build", *flags, "--target", target, "--tag", name, ".", timeout_s=_BUILD_TIMEOUT_S)

    def start(self) -> None:
        """Start everything and wait until it is healthy, or its work done; say what is not."""
        done = self.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(_TIMEOUT_S), check=False)
        said = done.stderr[-2000:]
        assert self.containers(), said
        bad = {name: self.logs(name) for name, words in self.states().items() if words not in ("healthy", "done")}
        assert not bad, f"{said}\n{bad}"

    def remove(self) -> None:
        """Remove containers, networks and volumes."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "20")

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what the engine knows of each service's first container."""
        label = "com.docker.compose.service"
        numbers = self.docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}")
        found = json.loads(self.docker("inspect", *numbers.split())) if numbers else []
        return {one["Config"]["Labels"][label]: one for one in sorted(found, key=lambda one: one["Name"], reverse=True)}

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of a service's container."""
        return self.containers()[service]

    def states(self) -> dict[str, str]:
        """Return for each service `healthy`, `done`, or what it is instead."""
        found = {}
        for name, container in self.containers().items():
            state = container["State"]
            health = state.get("Health", {}).get("Status", state["Status"])
            is_done = name in ONE_SHOT and state["Status"] == "exited" and state["ExitCode"] == 0
            found[name] = "done" if is_done else health
        return found

    def logs(self, service: str) -> str:
        """Return the end of what a service said."""
        return self.compose("logs", "--no-color", "--tail", "40", service, check=False).stdout[-4000:]

    def run_in(self, service: str, *words: str, given: str | None = None) -> str:
        """Run a program in a service's container; return what it prints."""
        return self.compose("exec", "--no-TTY", service, *words, given=given).stdout

    def ask(self, *words: str) -> Any:
        """Return what `codelupe WORDS… --json` answers in the daemon's container."""
        return json.loads(self.run_in("daemon-cpu", "codelupe", *words, "--json"))

    def fetch(self, url: str) -> Any:
        """Return the JSON at a URL as the ingest container sees it."""
        script = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=10).read().decode())"
        return json.loads(self.run_in("ingest", "python", "-c", script))

    def kill(self, service: str) -> None:
        """End a service's first process as a crash would: `docker kill` would tell the engine that it is meant."""
        pid = self.inspect(service)["State"]["Pid"]
        box = ("run", "--rm", "--pid", "host", "--user", "0", "--entrypoint", "python")
        self.docker(*box, f"codelupe-control:{self.tag}", "-c", f"import os; os.kill({pid}, 9)")

    def wait_until(self, what: str, holds: Callable[[], Any], timeout_s: float = _TIMEOUT_S) -> Any:
        """Return the first true answer of `holds`; fail after `timeout_s` seconds, with the stack's state."""
        deadline = time.monotonic() + timeout_s
        while not (found := holds()):
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s; {self.states()}"
            time.sleep(_LOOK_EVERY_S)
        return found


def _compose_command() -> list[str]:
    """Return the second compose, as a plug-in of docker or on its own."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True)
            if done.returncode == 0 and not done.stdout.startswith("1."):
                return command
    raise AssertionError("docker compose is missing: install the plug-in, or docker-compose 2 or newer")
