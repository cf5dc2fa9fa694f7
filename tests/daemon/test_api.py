"""The API over HTTP and a real database: what it does, whom it lets in, and how it says no."""

import json
import uuid

import pytest
import sqlalchemy as sa

from daemon.api.app import MAX_BODY_BYTES
from daemon.api.openapi import make_document
from daemon.api.routes import ROUTES
from daemon.api.tokens import SCOPES, add_token, remove_token
from schema.decisions import record_decision
from schema.jobs import MOST_QUEUED, answer_jobs
from schema.leases import acquire_lease
from schema.lines import fetch_line, open_line
from schema.listings import list_calls
from schema.opt_outs import add_opt_outs
from schema.runs import advance_run
from schema.search_index import index_new
from schema.versions import fetch_promotions
from tests.builders import add_files, add_repository, open_run
from tests.daemon.api_service import api_service
from tests.daemon.conclusions import conclude_with

LINE = "micro"
NOBODY = str(uuid.UUID(int=0))
CHANGING = [route for route in ROUTES if route.changes]
READING = [route for route in ROUTES if not route.changes]


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes)


@pytest.fixture
def caller(engine, tmp_path):
    with engine.begin() as conn:
        open_line(conn, name=LINE, base_model="some/model")
    with api_service(engine, tmp_path / "home", LINE) as caller:
        yield caller


def place_of(route):
    place = route.rule.replace("<job_id>", NOBODY).replace("<version>", "1").replace("<name>", "threshold_rows")
    return f"{place}?q=word" if route.name == "search" else place


def body_of(route):
    return None if route.body is None else {"reason": "because", "sources": [{"source": "https://a.example/b/c"}]}


def calls_of(engine):
    with engine.connect() as conn:
        return [(one["token"], one["operation"], one["status"]) for one in list_calls(conn, limit=99)]


def publish_two(ctx, rows):
    """Publish versions 1 and 2; the second one is in service."""
    for _ in range(2):
        rows()
        conclude_with(ctx, -0.05)


# Who is let in


@pytest.mark.parametrize("route", CHANGING, ids=lambda route: route.name)
def test_what_changes_something_needs_a_token_with_its_scope(route, caller, engine):
    without = caller.ask(route.method, place_of(route))
    assert (without.status, without.headers["WWW-Authenticate"]) == (401, 'Bearer realm="codelupe"')
    assert caller.ask(route.method, place_of(route), token="codelupe_of_nobody").status == 401
    others = [scope for scope in SCOPES if scope != route.scope]
    refused = [caller.ask(route.method, place_of(route), token=scope) for scope in others]
    assert [answer.status for answer in refused] == [403] * (len(SCOPES) - 1)
    assert caller.ask(route.method, place_of(route), body=b"{", token=route.scope).status not in (401, 403)


@pytest.mark.parametrize("route", READING, ids=lambda route: route.name)
def test_reading_from_this_machine_needs_no_token_but_a_wrong_one_is_refused(route, caller):
    assert caller.ask("GET", place_of(route)).status in (200, 404)
    assert caller.ask("GET", place_of(route), token="read").status in (200, 404)
    assert caller.ask("GET", place_of(route), token="wrong").status == 401


def test_a_page_elsewhere_whose_name_points_here_is_refused(caller):
    for path in ("/v1/jobs", "/status", "/metrics", "/"):
        assert caller.ask("GET", path, Host="evil.example").status == 421
    assert caller.ask("GET", "/v1/jobs", Host=f"localhost:{caller.port}").status == 200


def test_no_other_origin_may_read_what_is_answered(caller):
    answer = caller.ask("GET", "/v1/jobs", Origin="https://evil.example")
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert caller.ask("OPTIONS", "/v1/pause", Origin="https://evil.example").status == 405


def test_a_token_holds_and_ends_without_a_restart(caller):
    secret = add_token(caller.tokens, "late", ["train"])
    assert caller.ask("POST", "/v1/pause", token=secret).status == 200
    remove_token(caller.tokens, "late")
    assert caller.ask("POST", "/v1/pause", token=secret).status == 401


def test_a_damaged_file_of_tokens_lets_nobody_in(caller):
    caller.tokens.write_text("all train")
    answer = caller.ask("POST", "/v1/pause", token="all")
    assert (answer.status, answer.json["title"]) == (503, "tokens unreadable")


# What is recorded


def test_who_did_what_is_recorded_with_its_outcome_and_never_with_the_token(caller, engine, caplog):
    caplog.set_level("DEBUG")
    caller.ask("POST", "/v1/pause", token="all")
    caller.ask("DELETE", f"/v1/jobs/{NOBODY}", token="train")
    caller.ask("POST", "/v1/models/9/promote", {"reason": "x"}, token="models")
    caller.ask("POST", "/v1/fine-tune", {"reaso\u0000n\n": 1}, token="train")
    caller.ask("GET", "/v1/jobs", token="all")
    assert calls_of(engine) == [
        ("train", "fineTune", 422),
        ("models", "promoteModel", 404),
        ("train", "cancelJob", 404),
        ("all", "pause", 200),
    ]
    with engine.connect() as conn:
        written = repr(list_calls(conn, limit=9)) + caplog.text
    assert not [secret for secret in caller.secrets.values() if secret in written]


# Jobs


def test_a_job_is_asked_for_and_follows_its_run(caller, engine):
    asked = caller.ask("POST", "/v1/fine-tune", {"reason": "a release"}, token="train")
    place = asked.headers["Location"]
    assert (asked.status, asked.json["state"], asked.json["asked_by"]) == (202, "queued", "train")
    assert caller.changes == ["looked"]
    with engine.begin() as conn:
        line = fetch_line(conn, LINE)
        add_files(conn, add_repository(conn), 3)
        lease = acquire_lease(conn, "line:micro", "daemon", length_s=60)
        run = open_run(conn, line.id, lease)
        answer_jobs(conn, run)
    assert caller.ask("GET", place).json["state"] == "running"
    with engine.begin() as conn:
        advance_run(conn, run, lease=lease, to="promoted", version=4)
    job = caller.ask("GET", place).json
    assert (job["state"], job["run"], job["version"], job["reason"]) == ("promoted", 1, 4, "a release")
    assert caller.ask("GET", f"/status/{job['id']}").json == job
    over = caller.ask("DELETE", place, token="train")
    assert (over.status, over.json["title"]) == (409, "job over")


def test_a_job_outlives_the_service_that_took_it(caller, engine, tmp_path):
    asked = caller.ask("POST", "/v1/fine-tune", {"reason": "x"}, token="train")
    caller.stop()
    with api_service(engine, tmp_path / "another", LINE) as another:
        assert another.ask("GET", asked.headers["Location"]).json == asked.json


def test_a_job_that_waits_can_be_cancelled(caller):
    place = caller.ask("POST", "/v1/retrain", token="train").headers["Location"]
    assert caller.ask("DELETE", place, token="train").json["state"] == "cancelled"
    assert caller.ask("GET", place).json["state"] == "cancelled"


@pytest.mark.parametrize(
    ("path", "body", "forced"),
    [("fine-tune", None, True), ("retrain", {}, False), ("retrain", {"force": True}, True)],
)
def test_only_a_forced_job_trains_on_few_rows(path, body, forced, caller):
    assert caller.ask("POST", f"/v1/{path}", body, token="train").json["forced"] == forced


def test_the_same_request_with_the_same_key_is_one_job(caller):
    first = caller.ask("POST", "/v1/fine-tune", {"reason": "x"}, token="train", Idempotency_Key="k-1")
    again = caller.ask("POST", "/v1/fine-tune", {"reason": "x"}, token="train", Idempotency_Key="k-1")
    assert (again.status, again.json) == (202, first.json)
    other = caller.ask("POST", "/v1/fine-tune", {"reason": "y"}, token="train", Idempotency_Key="k-1")
    assert (other.status, other.json["title"]) == (409, "key taken")
    assert len(caller.ask("GET", "/v1/jobs").json["jobs"]) == 1


def test_when_too_many_jobs_wait_the_next_one_is_told_when_to_come_again(caller, engine):
    with engine.begin() as conn:
        conn.execute(
            sa.text(
                "INSERT INTO jobs (uuid, line_id, forced, asked_by) "
                "SELECT n, (SELECT id FROM lines), true, 'x' FROM generate_series(1, :num) n"
            ),
            {"num": MOST_QUEUED},
        )
    answer = caller.ask("POST", "/v1/fine-tune", token="train")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "60")


# Lists


def test_a_list_is_read_page_by_page_whatever_comes_meanwhile(caller, engine):
    with engine.begin() as conn:
        line = fetch_line(conn, LINE)
        for number in range(5):
            record_decision(conn, line.id, verdict="wait", reason=f"r{number}", inputs={"n": number})
    first = caller.ask("GET", "/v1/decisions?limit=2").json
    with engine.begin() as conn:
        record_decision(conn, line.id, verdict="wait", reason="later", inputs={})
    second = caller.ask("GET", f"/v1/decisions?limit=2&cursor={first['next']}").json
    last = caller.ask("GET", f"/v1/decisions?limit=2&cursor={second['next']}").json
    reasons = [one["reason"] for page in (first, second, last) for one in page["decisions"]]
    assert (reasons, last["next"]) == (["r4", "r3", "r2", "r1", "r0"], None)


def test_a_list_that_has_not_changed_is_not_sent_again(caller, engine):
    with engine.begin() as conn:
        record_decision(conn, fetch_line(conn, LINE).id, verdict="wait", reason="one", inputs={})
    etag = caller.ask("GET", "/v1/decisions").headers["ETag"]
    again = caller.ask("GET", "/v1/decisions", If_None_Match=etag)
    assert (again.status, again.text) == (304, "")
    assert caller.ask("GET", "/v1/decisions", token="train", If_None_Match=etag).status == 403
    with engine.begin() as conn:
        record_decision(conn, fetch_line(conn, LINE).id, verdict="wait", reason="two", inputs={})
    assert caller.ask("GET", "/v1/decisions", If_None_Match=etag).status == 200


def test_repositories_are_shown_with_what_became_of_them(caller, engine):
    with engine.begin() as conn:
        add_repository(conn, "/sources/done")
    caller.ask("POST", "/v1/sources", {"sources": [{"source": "https://github.com/a/b"}]}, token="sources")
    done = caller.ask("GET", "/v1/repositories?state=done").json["repositories"]
    assert [(one["source"], one["refusals"]) for one in done] == [("/sources/done", {"binary": 1})]
    assert len(caller.ask("GET", "/v1/repositories").json["repositories"]) == 2


def test_a_search_finds_files_by_what_they_define(caller, engine):
    with engine.begin() as conn:
        (found,) = add_files(conn, add_repository(conn), 1, content="def read_everything():\n    return 1\n")
    list(index_new(engine))
    page = caller.ask("GET", "/v1/search?q=readEverything&kind=file").json
    assert [(hit["id"], hit["is_named"], hit["snippets"][0]["line"]) for hit in page["hits"]] == [(found, True, 1)]
    assert caller.ask("GET", "/v1/search?q=nothing_like_it").json == {"hits": [], "next": None}


@pytest.mark.parametrize("query", ["q=", "q=!!!", "q=x&cursor=!", "q=x&state=unheard", "kind=file"])
def test_a_search_that_cannot_be_done_says_why(query, caller):
    answer = caller.ask("GET", f"/v1/search?{query}")
    assert (answer.status, answer.json["errors"][0]["where"].partition(".")[0]) == (422, "query")


# Control, versions, sources


def test_the_line_is_paused_and_goes_on(caller, engine):
    for path, paused in (("pause", True), ("pause", True), ("resume", False)):
        assert caller.ask("POST", f"/v1/{path}", token="train").json == {"line": LINE, "paused": paused}
        with engine.connect() as conn:
            assert fetch_line(conn, LINE).paused == paused


def test_a_version_is_rolled_back_and_promoted_with_its_reason(caller, ctx, engine, rows):
    publish_two(ctx, rows)
    models = caller.ask("GET", "/v1/models").json
    assert (models["current"], [one["number"] for one in models["versions"]]) == (2, [2, 1])
    assert models["versions"][0]["bits_per_byte"] is not None
    back = caller.ask("POST", "/v1/models/1/rollback", {"reason": "worse in use"}, token="models")
    assert back.json == {"current": 1, "previous": 2, "changed": True}
    assert caller.paths.current.resolve().name == "0001"
    assert caller.ask("GET", "/v1/models/1").json["current"]
    again = caller.ask("POST", "/v1/models/1/rollback", {"reason": "worse in use"}, token="models")
    assert (again.status, again.json["changed"]) == (200, False)
    assert caller.ask("POST", "/v1/models/2/promote", {"reason": "better"}, token="models").json["current"] == 2
    with engine.connect() as conn:
        last = fetch_promotions(conn, fetch_line(conn, LINE).id)[-1]
    assert (last["actor"], last["version"], last["reason"]) == ("api:models", 2, "better")


def test_a_version_whose_files_are_damaged_is_not_put_into_service(caller, ctx, rows):
    publish_two(ctx, rows)
    (caller.paths.version(1) / "adapter_model.safetensors").write_bytes(b"changed")
    answer = caller.ask("POST", "/v1/models/1/promote", {"reason": "x"}, token="models")
    assert (answer.status, answer.json["title"]) == (409, "damaged version")
    assert caller.ask("GET", "/v1/models").json["current"] == 2


def test_sources_are_queued_once_in_their_canonical_form(caller, engine):
    with engine.begin() as conn:
        add_opt_outs(conn, ["private/*"])
    asked = ["https://GitHub.com/A/B.git", "https://github.com/a/b/", "https://github.com/private/x"]
    body = {"sources": [{"source": source} for source in asked]}
    answer = caller.ask("POST", "/v1/sources", body, token="sources")
    assert [(one["source"], one["outcome"]) for one in answer.json["sources"]] == [
        ("https://github.com/a/b", "added"),
        ("https://github.com/a/b", "known"),
        ("https://github.com/private/x", "opted_out"),
    ]


@pytest.mark.parametrize(
    "source", ["/etc", "file:///etc", "git@github.com:a/b", "https://user:hunter2@github.com/a/b", "https://[", "x"]
)
def test_a_source_that_is_not_a_public_address_is_refused_without_repeating_it(source, caller):
    answer = caller.ask("POST", "/v1/sources", {"sources": [{"source": source}]}, token="sources")
    assert (answer.status, answer.json["errors"][0]["where"]) == (422, "body.sources.0.source")
    assert "hunter2" not in answer.text


# How it says no


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/v1/fine-tune", b"{", {}, 400),
        ("POST", "/v1/fine-tune", b"\xff", {}, 400),
        ("POST", "/v1/fine-tune", b"[]", {}, 422),
        ("POST", "/v1/fine-tune", {"reason": 3}, {}, 422),
        ("POST", "/v1/fine-tune", {"reason": "a\u0000b"}, {}, 422),
        ("POST", "/v1/fine-tune", {"unknown": 1}, {}, 422),
        ("POST", "/v1/fine-tune", {}, {"Idempotency_Key": "a key"}, 422),
        ("POST", "/v1/fine-tune", {}, {"Content_Type": "text/plain"}, 415),
        ("POST", "/v1/retrain", {"force": "yes"}, {}, 422),
        ("POST", "/v1/models/1/promote", None, {}, 422),
        ("POST", "/v1/models/x/promote", {"reason": "x"}, {}, 422),
        ("GET", "/v1/models/99999999999999999999", None, {}, 422),
        ("GET", "/v1/jobs?limit=0", None, {}, 422),
        ("GET", "/v1/jobs?limit=9&limit=8", None, {}, 422),
        ("GET", "/v1/jobs?cursor=-1", None, {}, 422),
        ("GET", "/v1/jobs?other=1", None, {}, 422),
        ("GET", "/v1/jobs/%00", None, {}, 422),
        ("GET", "/v1/nothing", None, {}, 404),
        ("GET", f"/status/{NOBODY}", None, {}, 404),
        ("PUT", "/v1/pause", {}, {}, 405),
        ("POST", "/v1/fine-tune", b" " * (MAX_BODY_BYTES + 1), {}, 413),
    ],
)
def test_every_refusal_is_a_problem_that_says_what_is_wrong(method, path, body, headers, status, caller):
    token = None if method == "GET" else "all"
    answer = caller.ask(method, path, body, token=token, **headers)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["errors"] or status != 422


def test_while_the_line_is_not_open_yet_callers_are_told_to_come_again(engine, tmp_path):
    with api_service(engine, tmp_path / "home", "another") as caller:
        answer = caller.ask("GET", "/v1/jobs")
    assert (answer.status, answer.json["title"], answer.headers["Retry-After"]) == (503, "starting", "5")


# What it says of itself


def test_the_document_describes_every_route_and_refers_to_nothing_that_is_missing(caller):
    document = caller.ask("GET", "/v1/openapi.json").json
    assert document["openapi"] == "3.1.0"
    assert document == json.loads(json.dumps(make_document(ROUTES, document["info"]["version"])))
    operations = [(place, method) for place, methods in document["paths"].items() for method in methods]
    assert len(operations) == len(ROUTES)
    text = json.dumps(document)
    names = document["components"]["schemas"]
    assert {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]} <= set(names)
