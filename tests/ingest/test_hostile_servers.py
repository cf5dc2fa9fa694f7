"""Servers that mean harm, over real HTTP on loopback: each ends with a reason, leaves nothing, and the next goes on."""

import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.entries import SourceFailed
from ingest.refresh import add_git_config, ask_server
from schema.repositories import add_source
from tests.ingest.helpers import SETTINGS, git, make_code
from tests.ingest.servers import ADVERTISEMENT, OID, Request, Server, answer_as_git_does, pkt, run_backend, serve
from tests.ingest.test_worker import processes_in, wait_for

Fetch = Callable[..., list[tuple[object, ...]]]
_STATE = "SELECT state, reason FROM repositories ORDER BY id"
_FILES = "SELECT file_path FROM processed_files WHERE excluded_reason IS NULL ORDER BY 1"
_ONCE = SETTINGS.model_copy(update={"max_attempts": 1, "ingest_workers": 2})
_SECRET = "Basic c2VjcmV0OnNlY3JldA=="


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[Request], None]], Server]]:
    """Call it with what answers for a server."""
    with ExitStack() as stack:
        yield lambda respond: stack.enter_context(serve(respond))


def ask_for_credentials(request: Request) -> None:
    request.send(401, WWW_Authenticate='Basic realm="name and password"')


def ask_for_credentials_later(request: Request) -> None:
    request.advertise() if request.is_first else ask_for_credentials(request)


def fail(request: Request) -> None:
    request.send(503, b"down")


def show_a_page(request: Request) -> None:
    request.send(200, b"<html>", "text/html")


def send_elsewhere(request: Request) -> None:
    port = request.handler.server.server_address[1]  # type: ignore[misc]
    request.send(302, Location=f"http://localhost:{port}{request.handler.path.replace('send', 'find')}")


def send_git_elsewhere(request: Request) -> None:
    request.advertise() if request.is_first else send_elsewhere(request)


def send_round(request: Request) -> None:
    request.send(301, Location=request.handler.path)


def send_to_a_file(request: Request) -> None:
    request.send(302, Location="file:///etc/passwd")


def talk_nonsense(request: Request) -> None:
    request.send(200, b"zzzz" * 99, ADVERTISEMENT)


def flood_with_references(request: Request) -> None:
    request.start(200, ADVERTISEMENT)
    request.flood(pkt(OID + b" refs/heads/" + b"x" * 4000 + b"\n") * 9)


def flood_with_a_pack(request: Request) -> None:
    """One object of 2^40 zeros: stored, so that nothing is saved by the size of what is sent."""

    def flood(request: Request) -> None:
        head = b"PACK" + struct.pack(">II", 2, 1) + bytes([0xB0, 0x80, 0x80, 0x80, 0x80, 0x20]) + b"\x78\x01"
        request.handler.wfile.write(pkt(b"\x01" + head))
        request.flood(pkt(b"\x01\x00\x00\x80\xff\x7f" + bytes(0x8000)))

    answer_as_git_does(request, flood)


def drip(request: Request) -> None:
    answer_as_git_does(request, lambda request: request.flood(pkt(b"\x02."), every_s=0.05))


def drip_at_once(request: Request) -> None:
    request.start(200, ADVERTISEMENT)
    request.flood(b"0", every_s=0.05)


HOSTILE = [
    (ask_for_credentials, "refused", "no_access"),
    (ask_for_credentials_later, "refused", "no_access"),
    (fail, "dead", "clone_failed"),
    (show_a_page, "refused", "not_git"),
    (send_elsewhere, "refused", "redirected"),
    (send_git_elsewhere, "dead", "clone_failed"),
    (send_round, "refused", "redirected"),
    (send_to_a_file, "refused", "redirected"),
    (talk_nonsense, "dead", "clone_failed"),
    (flood_with_references, "dead", "clone_failed"),
    (flood_with_a_pack, "refused", "clone_too_large"),
]


def test_every_hostile_server_ends_with_a_reason_and_the_next_source_is_read(
    start: Callable[..., Server],
    make_folder: Callable[..., Path],
    ingest: Callable[..., None],
    fetch: Fetch,
    tmp_path: Path,
) -> None:
    servers = [start(respond) for respond, _, _ in HOSTILE]
    urls = [f"{server.url}/send/tool" for server in servers]
    settings = _ONCE.model_copy(
        update={"clone_max_bytes": 4_194_304, "clone_timeout_s": 60, "child_memory_bytes": 536_870_912}
    )
    ingest(*urls, make_folder("good", {"a.py": make_code("a")}), settings=settings)
    ends = dict(zip([respond.__name__ for respond, _, _ in HOSTILE] + ["good"], fetch(_STATE), strict=True))
    assert ends == {respond.__name__: (state, reason) for respond, state, reason in HOSTILE} | {"good": ("done", None)}
    assert [line for server in servers for line in server.requests if "/find/" in line] == []
    assert [words for server in servers for words in server.credentials] == []
    wait_for(lambda: not processes_in(tmp_path))


def test_a_server_that_drips_is_left_when_the_time_of_a_clone_is_over(
    start: Callable[..., Server], ingest: Callable[..., None], fetch: Fetch, tmp_path: Path
) -> None:
    urls = [f"{start(respond).url}/alice/tool" for respond in (drip, drip_at_once)]
    ingest(*urls, settings=_ONCE.model_copy(update={"clone_timeout_s": 4}))
    assert fetch(_STATE) == [("dead", "timeout")] * 2
    wait_for(lambda: not processes_in(tmp_path))


def test_a_pack_that_is_cut_in_the_middle_is_tried_again_and_read_whole(
    make_repository: Callable[..., Path],
    start: Callable[..., Server],
    ingest: Callable[..., None],
    fetch: Fetch,
    tmp_path: Path,
) -> None:
    make_repository("alice/tool", {"a.py": make_code("a"), "noise.bin": "".join(map(str, range(9_000)))})
    cuts: list[int] = []

    def respond(request: Request) -> None:
        status, headers, body = run_backend(tmp_path, request)
        kind = headers.pop("Content-Type", "text/plain")
        if b"PACK" in body and len(cuts) < 2:
            cuts.append(len(body))
            request.start(status, kind, Content_Length=str(len(body)))
            request.handler.wfile.write(body[: len(body) // 2])
        else:
            request.send(status, body, kind, **headers)

    ingest(f"{start(respond).url}/alice/tool", settings=SETTINGS)
    assert (len(cuts), fetch(_STATE), fetch(_FILES)) == (2, [("done", None)], [("a.py",)])


PRIVATE = [
    ("https://127.0.0.1:{}/alice/tool", "private_host"),
    ("https://[::1]:{}/alice/tool", "private_host"),
    ("http://127.0.0.1:{}/alice/tool", "protocol"),
]


def test_a_found_source_on_a_private_host_is_refused_unasked(
    start: Callable[..., Server], engine: sa.Engine, ingest: Callable[..., None], fetch: Fetch
) -> None:
    server = start(fail)
    port = server.url.rpartition(":")[2]
    with engine.begin() as conn:
        for source, _ in PRIVATE:
            add_source(conn, source=source.format(port), kind="git", origin="crawler", name="tool")
    ingest(settings=_ONCE)
    rows = fetch("SELECT source, state, reason FROM repositories ORDER BY id")
    assert rows == [(source.format(port), "refused", reason) for source, reason in PRIVATE]
    assert server.requests == []


_ADDRESSES = [
    ["8.8.8.8", "10.0.0.1"],
    ["169.254.169.254"],
    ["::ffff:10.1.2.3"],
    ["fe80::1%lo"],
    ["100.64.0.1"],
    ["0.0.0.0"],
]


@pytest.mark.parametrize("addresses", _ADDRESSES)
def test_a_public_name_with_one_private_address_is_refused(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(None, None, 0, "", (address, 443)) for address in addresses]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    with pytest.raises(SourceFailed, match="private_host"):
        ask_server("https://tool.example/alice/tool", must_be_public=True)


def test_git_connects_to_the_address_that_was_looked_at_whatever_the_name_means_by_then(
    make_repository: Callable[..., Path], git_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = make_repository("alice/tool", {"a.py": make_code("a")})
    port = git_server.rpartition(":")[2]
    for name in ("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0"):
        monkeypatch.setenv(name, "0")
    add_git_config("http.curloptResolve", f"tool.invalid:{port}:127.0.0.1")
    command = ["git", "ls-remote", f"http://tool.invalid:{port}/alice/tool", "HEAD"]
    said = subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, text=True).stdout
    assert said.split() == [git(root, "rev-parse", "HEAD"), "HEAD"]


def test_a_found_source_on_the_server_whose_api_the_operator_named_is_read(
    make_repository: Callable[..., Path], engine: sa.Engine, ingest: Callable[..., None], fetch: Fetch, git_server: str
) -> None:
    make_repository("alice/tool", {"a.py": make_code("a")})
    with engine.begin() as conn:
        add_source(conn, source=f"{git_server}/alice/tool", kind="git", origin="crawler", name="tool", licence="MIT")
    ingest(settings=_ONCE.model_copy(update={"github_api_url": f"{git_server}/api/v3"}))
    assert fetch(_STATE) == [("done", None)]


def test_a_server_may_send_to_another_path_of_its_own(
    make_repository: Callable[..., Path],
    start: Callable[..., Server],
    ingest: Callable[..., None],
    fetch: Fetch,
    tmp_path: Path,
) -> None:
    """As GitHub does with a repository that was renamed."""
    make_repository("alice/tool", {"a.py": make_code("a")})

    def respond(request: Request) -> None:
        if request.handler.path.startswith("/bob/"):
            request.send(301, Location=request.handler.path.replace("/bob/", "/alice/"))
            return
        status, headers, body = run_backend(tmp_path, request)
        request.send(status, body, headers.pop("Content-Type", "text/plain"), **headers)

    ingest(f"{start(respond).url}/bob/tool")
    assert (fetch(_STATE), fetch(_FILES)) == ([("done", None)], [("a.py",)])


def test_thousands_of_references_long_ones_and_a_head_that_is_detached_are_no_trouble(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, git_server: str
) -> None:
    root = make_repository("alice/tool", {"a.py": make_code("a")})
    head = git(root, "rev-parse", "HEAD")
    names = [f"refs/tags/v{number:05}" for number in range(5_000)] + ["refs/heads/" + "/".join(["x" * 200] * 15)]
    lines = "".join(f"{head} {name}\n" for name in sorted(names))
    (root / ".git" / "packed-refs").write_text(f"# pack-refs with: peeled fully-peeled sorted \n{lines}")
    git(root, "checkout", "-q", "--detach")
    make_repository("alice/tool", {"b.py": make_code("b")})
    ingest(f"{git_server}/alice/tool")
    assert (fetch(_STATE), fetch(_FILES)) == ([("done", None)], [("a.py",), ("b.py",)])


def test_a_head_that_names_no_branch_is_refused(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, git_server: str
) -> None:
    root = make_repository("alice/tool", {"a.py": make_code("a")})
    git(root, "symbolic-ref", "HEAD", "refs/heads/nowhere")
    ingest(f"{git_server}/alice/tool")
    assert fetch(_STATE) == [("refused", "empty")]


def test_what_lies_in_git_lfs_or_in_a_submodule_is_refused_with_a_reason_and_not_fetched(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, git_server: str
) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 12345\n"
    modules = f'[submodule "m.py"]\n\tpath = m.py\n\turl = {git_server}/alice/secret\n'
    files = {"a.py": make_code("a"), "large.py": pointer, ".gitmodules": modules, ".gitattributes": "* filter=lfs\n"}
    root = make_repository("alice/tool", files)
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{git(root, 'rev-parse', 'HEAD')},m.py")
    git(root, "commit", "-q", "-m", "module")
    ingest(f"{git_server}/alice/tool")
    assert fetch(_FILES) == [("a.py",)]
    assert fetch("SELECT file_path, reason FROM refused_files ORDER BY 1") == [
        ("large.py", "lfs_pointer"),
        ("m.py", "gitlink"),
    ]
