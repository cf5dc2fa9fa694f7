"""Servers on loopback: `git http-backend` over a folder, real smart HTTP, and servers that mean harm."""

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.ingest.helpers import GIT

OID = b"1234567890" * 4
ADVERTISEMENT = "application/x-git-upload-pack-advertisement"
RESULT = "application/x-git-upload-pack-result"


@dataclass
class Request:
    """One request as the server sees it, and how to answer it."""

    handler: BaseHTTPRequestHandler
    stopped: threading.Event
    body: bytes = b""

    @property
    def is_first(self) -> bool:
        """Whether it is ours, not git's: git says which protocol it speaks."""
        return "Git-Protocol" not in self.handler.headers

    @property
    def line(self) -> str:
        """Method and path."""
        return f"{self.handler.command} {self.handler.path}"

    def send(self, status: int, body: bytes = b"", kind: str = "text/plain", **headers: str) -> None:
        """Answer."""
        self.start(status, kind, **{"Content-Length": str(len(body)), **headers})
        self.handler.wfile.write(body)

    def start(self, status: int, kind: str, **headers: str) -> None:
        """Begin an answer whose end is the end of the connection."""
        self.handler.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()

    def advertise(self, *references: tuple[bytes, bytes]) -> None:
        """Answer with references, HEAD alone if none are given."""
        lines = [b"%b %b" % pair for pair in references or ((OID, b"HEAD"),)]
        lines[0] += b"\0agent=test"
        packets = b"".join(pkt(line + b"\n") for line in lines)
        self.send(200, pkt(b"# service=git-upload-pack\n") + b"0000" + packets + b"0000", ADVERTISEMENT)

    def write(self, data: bytes) -> None:
        """Go on with the answer; when the other side has had enough, the server sees to the error."""
        self.handler.wfile.write(data)

    def flood(self, chunk: bytes, *, every_s: float = 0) -> None:
        """Send a chunk again and again until the other side has enough, or the server is stopped."""
        with contextlib.suppress(OSError):
            while not self.stopped.wait(every_s):
                self.handler.wfile.write(chunk)


@dataclass
class Server:
    """A running server: its address and the requests it got, with what they said of who sent them."""

    url: str
    requests: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serve(respond: Callable[[Request], None]) -> Iterator[Server]:
    """Serve on loopback; `respond` answers each request in a thread of its own."""
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self, stopped, body)
            running.requests.append(request.line)
            running.credentials += [self.headers[name] for name in ("Authorization", "Cookie") if self.headers[name]]
            with contextlib.suppress(ConnectionError):
                respond(request)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = Server(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield running
    stopped.set()
    server.shutdown()
    server.server_close()
    thread.join()


def run_backend(root: Path, request: Request) -> tuple[int, dict[str, str], bytes]:
    """Return the answer of `git http-backend` over the repositories below `root`: status, headers, body."""
    path, _, query = request.handler.path.partition("?")
    headers = request.handler.headers
    environment = GIT | {
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": request.handler.command,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(request.body)),
        "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
        "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
    }
    done = subprocess.run(["git", "http-backend"], env=environment, input=request.body, capture_output=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    answer = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
    return int(answer.pop("Status", "200").split()[0]), answer, body


def serve_git(root: Path) -> contextlib.AbstractContextManager[Server]:
    """Serve the repositories below a folder."""

    def respond(request: Request) -> None:
        status, headers, body = run_backend(root, request)
        request.send(status, body, headers.pop("Content-Type", "text/plain"), **headers)

    return serve(respond)


def answer_as_git_does(request: Request, pack: Callable[[Request], None]) -> None:
    """Speak protocol 2 up to the pack."""
    if request.is_first:
        request.advertise()
    elif request.handler.command == "GET":
        features = pkt(b"ls-refs\n") + pkt(b"fetch=shallow filter\n") + pkt(b"object-format=sha1\n")
        said = pkt(b"# service=git-upload-pack\n") + b"0000" + pkt(b"version 2\n") + features + b"0000"
        request.send(200, said, ADVERTISEMENT)
    elif b"command=ls-refs" in request.body:
        lines = pkt(OID + b" HEAD symref-target:refs/heads/main\n") + pkt(OID + b" refs/heads/main\n")
        request.send(200, lines + b"0000", RESULT)
    else:
        request.start(200, RESULT)
        request.write(pkt(b"shallow-info\n") + pkt(b"shallow " + OID) + b"0001" + pkt(b"packfile\n"))
        pack(request)


def pkt(data: bytes) -> bytes:
    """Return one line of git's protocol."""
    return b"%04x%b" % (len(data) + 4, data)
