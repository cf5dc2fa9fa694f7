"""Release tags of what the operator named, from the one request that a visit makes anyway; real git over HTTP."""

import pytest
import sqlalchemy as sa

from ingest.refresh import ask_server
from ingest.rescans import rescan
from tests.ingest.helpers import SETTINGS, git, make_code
from tests.ingest.servers import ADVERTISEMENT, OID, pkt, serve, serve_git

_TAGS = "SELECT name, seen_at IS NOT NULL FROM release_tags ORDER BY name"


@pytest.fixture
def server(tmp_path):
    with serve_git(tmp_path) as running:
        yield running


@pytest.fixture
def revisit(engine, ingest):
    """Visit every source again, as after the interval."""

    def run():
        with engine.begin() as conn:
            conn.execute(sa.text("UPDATE repositories SET visited_at = now() - interval '2 days'"))
        assert rescan(engine, SETTINGS) == 1
        ingest()

    return run


def test_a_new_release_tag_is_seen_by_the_one_request_for_an_unchanged_repository(
    make_repository, ingest, revisit, fetch, server
):
    root = make_repository("alice/tool", {"a.py": make_code("a")})
    for name in ("v1.0.0", "nightly", "v2.0.0-rc1"):
        git(root, "tag", name)
    ingest(f"{server.url}/alice/tool")
    first = fetch(_TAGS)
    git(root, "tag", "-a", "-m", "annotated", "lib-2.10")
    server.requests.clear()
    revisit()
    second = fetch(_TAGS)
    git(root, "tag", "-d", "v1.0.0")
    revisit()

    assert first == [("v1.0.0", False)]
    assert second == [("lib-2.10", True), ("v1.0.0", False)]
    assert server.requests == ["GET /alice/tool/info/refs?service=git-upload-pack"] * 2
    assert fetch(_TAGS) == [("lib-2.10", True)]


def test_of_very_many_tags_the_highest_versions_are_kept(make_repository, ingest, fetch, server):
    root = make_repository("alice/tool", {"a.py": make_code("a")})
    head = git(root, "rev-parse", "HEAD").strip()
    packed = "".join(f"{head} refs/tags/v1.{number}\n" for number in range(1200))
    (root / ".git" / "packed-refs").write_text(packed)

    ingest(f"{server.url}/alice/tool")

    assert fetch("SELECT count(*) FROM release_tags") == [(1000,)]
    assert fetch("SELECT name FROM release_tags WHERE name IN ('v1.199', 'v1.200', 'v1.1199') ORDER BY 1") == [
        ("v1.1199",),
        ("v1.200",),
    ]


def test_an_answer_without_an_end_costs_the_tags_alone():
    def flood(request):
        request.start(200, ADVERTISEMENT)
        request.write(pkt(b"# service=git-upload-pack\n") + b"0000" + pkt(OID + b" HEAD\0agent=test\n"))
        request.flood(pkt(OID + b" refs/tags/v1.0\n") * 1000)

    with serve(flood) as server:
        answer = ask_server(f"{server.url}/alice/tool", must_be_public=False)

    assert (answer.head, answer.tags) == (OID.decode(), None)
