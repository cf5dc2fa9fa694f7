"""A model hub on loopback: it serves the files of one folder, and each way of not doing so under a name of its own.

As a program it loads every base that it is told of, in a process of its own, for the library reads its environment
when it is imported: `python -m tests.training.fake_hub JOB_DIR BASE…` prints one JSON document, the failure by base.
"""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted."}
LOGIN_PAGE = b"<html><body>Please log in to this network.</body></html>"
# The first part of a base's name says what becomes of a request for its files.
ANSWERS: dict[str, tuple[int, dict[str, str]]] = {
    "missing": (404, {"X-Error-Code": "RepoNotFound"}),
    "gated-401": (401, GATED),
    "gated-403": (403, GATED),
    "busy": (503, {}),
}


class Hub(ThreadingHTTPServer):
    """The server; `tokens` are those that it was sent, `closed` is set at its end."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], files: Path | None, stranger: "Hub | None") -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.files, self.stranger = files or Path(), stranger
        self.closed = threading.Event()
        self.tokens: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers for one request, by the name of the base."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        way = self.path.strip("/").removeprefix("api/models/").split("/")[0]
        self.server.tokens += [self.headers["Authorization"]] if "Authorization" in self.headers else []
        if way in ANSWERS:
            self.answer(*ANSWERS[way])
        elif way == "redirected":
            self.answer(302, {"Location": f"http://localhost:{self.server.stranger.server_port}{self.path}"})
        elif way == "hanging":
            self.server.closed.wait()
        else:
            self.serve(way, self.path.split("/resolve/")[-1].split("/", 1)[-1])

    do_HEAD = do_GET  # noqa: N815

    def serve(self, way: str, name: str) -> None:
        """Answer with a file, or with what has become of it."""
        file = self.server.files / name
        if "/resolve/" not in self.path or not file.is_file():
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        data = file.read_bytes()
        if way == "garbage" and name.endswith(".json"):
            data = b'{"model_type": qwen2'
        if way == "truncated" and name.endswith(".safetensors"):
            data = data[:-100]
        self.answer(200, {"X-Repo-Commit": COMMIT, "ETag": f'"{way}-{name}"'}, data)

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class LoginPage(Handler):
    """What answers instead of the hub in a network that wants a login first."""

    def do_GET(self) -> None:
        self.server.tokens += [self.headers["Authorization"]] if "Authorization" in self.headers else []
        self.answer(200, {"Content-Type": "text/html"}, LOGIN_PAGE)

    do_HEAD = do_GET  # noqa: N815


@contextlib.contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], files: Path | None = None, stranger: Hub | None = None
) -> Iterator[Hub]:
    """Run a hub that serves `files`, and redirects to `stranger`."""
    hub = Hub(handler, files, stranger)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.closed.set()
        hub.shutdown()
        hub.server_close()


def load_each(job_dir: Path, bases: list[str]) -> dict[str, dict[str, object]]:
    """Load each base as the verbs do: tokenizer first; return what they fail with."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    from daemon.job import Job
    from daemon.training.base import load_base
    from daemon.training.base_files import load_base_tokenizer
    from daemon.training.child import Failed
    from daemon.training.failures import classify

    # The library waits up to half a minute between its tries, and a minute for each: no setting of it shortens that.
    file_download._ETAG_RETRY_TIMEOUT = 1
    _http.time = type("Time", (), {"sleep": staticmethod(lambda _: None)})
    job = Job.model_validate_json((job_dir / "job.json").read_text())
    failures = {}
    for base in bases:
        # All others answer, on a busy machine late.
        constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = 1 if base.startswith("hanging") else 60
        wanted = job.model_copy(update={"base": base, "base_revision": "v1.5"})
        try:
            load_base_tokenizer(wanted)
            load_base(wanted)
        except Failed as error:
            failures[base] = classify(error).model_dump()
    return failures


if __name__ == "__main__":
    json.dump(load_each(Path(sys.argv[1]), sys.argv[2:]), sys.stdout)
