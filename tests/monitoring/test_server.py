import datetime as dt
import http.client
import json
import logging
import math
import os
import re
import socket
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from monitoring import server as server_module
from monitoring.server import ListenError, PortTaken, create_app, serve
from tests.waiting import DEADLINE_S

WELL = {"status": "ok", "reasons": [], "model_loaded": True, "last_trained_id": 9, "current_version": 3}
TRAINING = {
    "run": {"number": 4, "kind": "adapter", "state": "training"},
    "training": {"phase": "train", "step": 37, "total": 120, "loss": 2.3123, "tokens_per_s": 9123.4, "eta_s": 83.2},
    "backlog": {"num_fresh": 30, "threshold": 100},
    "versions": [{"number": 3, "verdict": "promoted", "parent": None, "bits_per_byte": 2.179}],
}


def fail(*_):
    raise RuntimeError("no answer")


@pytest.fixture
def start():
    """Serve an app of the given callables; return a function that asks it for a path."""
    servers = []

    def start(health=lambda: WELL, ready=lambda: (True, []), status=lambda: TRAINING, registry=None):
        app = create_app(health=health, ready=ready, status=status, registry=registry or CollectorRegistry())
        server = serve(app, "127.0.0.1", 0)
        servers.append(server)

        def ask(path, method="GET", **headers):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            body = response.read().decode()
            connection.close()
            return response, body

        return ask

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(("status", "code"), [("ok", 200), ("degraded", 200), ("down", 503)])
def test_health_answers_503_only_when_the_process_is_down(start, status, code):
    response, body = start(health=lambda: {**WELL, "status": status})("/health")
    assert response.status == code
    assert json.loads(body) == {**WELL, "status": status}


def test_a_health_check_that_fails_says_degraded_and_is_logged_with_its_traceback(start, caplog):
    response, body = start(health=fail)("/health")
    answer = json.loads(body)
    assert (response.status, answer["status"], answer["reasons"]) == (200, "degraded", ["health_check_failed"])
    assert set(answer) == set(WELL)
    assert caplog.records[-1].exc_info[0] is RuntimeError


@pytest.mark.parametrize(
    ("ready", "code", "answer"),
    [
        (lambda: (True, []), 200, {"ready": True, "reasons": []}),
        (lambda: (False, ["database_away"]), 503, {"ready": False, "reasons": ["database_away"]}),
        (fail, 503, {"ready": False, "reasons": ["ready_check_failed"]}),
    ],
)
def test_ready_answers_503_with_the_reasons(start, ready, code, answer):
    response, body = start(ready=ready)("/ready")
    assert (response.status, json.loads(body)) == (code, answer)


def test_metrics_are_prometheus_text(start):
    registry = CollectorRegistry()
    Gauge("depth_meters", "Depth", registry=registry).set(3)
    response, body = start(registry=registry)("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert [sample.value for family in text_string_to_metric_families(body) for sample in family.samples] == [3]


def test_metrics_are_openmetrics_for_who_asks(start):
    response, body = start()("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


def test_status_is_json_even_where_python_is_not(start):
    status = {
        "loss": math.nan,
        "figures": [math.inf, 1.5],
        "at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "path": Path("/x"),
    }
    response, body = start(status=lambda: status)("/status")
    answer = json.loads(body, parse_constant=fail)
    assert response.headers["Content-Type"] == "application/json"
    assert answer == {"loss": None, "figures": [None, 1.5], "at": "2026-01-02 00:00:00+00:00", "path": "/x"}


def test_a_status_that_fails_is_a_500_with_a_logged_traceback_and_no_details(start, caplog):
    response, body = start(status=fail)("/status")
    assert (response.status, json.loads(body)["title"]) == (500, "Internal Server Error")
    assert "no answer" not in body
    assert any(record.exc_info and record.exc_info[0] is RuntimeError for record in caplog.records)


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/nothing", 404), ("POST", "/health", 405)])
def test_errors_are_json(start, method, path, code):
    response, body = start()(path, method)
    assert (response.status, json.loads(body)["status"]) == (code, code)


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/favicon.ico", "/static/page.css", "/nothing"])
def test_every_answer_carries_the_security_headers_and_no_server_name(start, path):
    headers = start()(path)[0].headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "Werkzeug" not in headers.get("Server", "")
    assert "waitress" not in headers.get("Server", "")


def test_the_page_shows_health_the_run_and_the_versions(start):
    response, page = start(health=lambda: {**WELL, "status": "degraded", "reasons": ["runs_failing"]})("/")
    assert response.status == 200
    for shown in ("degraded", "runs failing", "Run 4", "37/120", "2.3123", "9,123", "1m23s", "2.1790", "fresh"):
        assert shown in page
    assert 'max="120" value="37"' in page


@pytest.mark.parametrize(
    "status", [{}, {"run": None, "training": {}}, {"run": {"number": 0, "kind": "base", "state": "claimed"}}]
)
def test_the_page_copes_with_a_daemon_that_has_little_to_tell(start, status):
    response, page = start(
        health=lambda: {**WELL, "current_version": None, "reasons": ["no_version_yet"]}, status=lambda: status
    )("/")
    assert response.status == 200
    assert "None yet." in page


def test_the_page_gives_the_words_behind_a_reason(start):
    health = {**WELL, "status": "degraded", "reasons": ["database_away"], "details": {"database": "connection refused"}}
    assert "database: connection refused" in start(health=lambda: health)("/")[1]


def test_ingest_s_page_speaks_of_its_queue_and_not_of_versions(start):
    ingest = {**WELL, "model_loaded": False, "current_version": None, "last_trained_id": None}
    status = {"ingest": {"queue": {"queued": 2}, "refusals": {"too_large": 7}, "sources": [{"source": "/x"}]}}
    page = start(health=lambda: ingest, status=lambda: status)("/")[1]
    assert "queued" in page
    assert "too large" in page
    assert "Versions" not in page
    assert "run is open" not in page


def test_the_page_is_there_when_the_status_is_not(start):
    response, page = start(status=fail, health=fail)("/")
    assert response.status == 200
    assert "health check failed" in page
    assert "could not be told" in page


def test_the_view_is_sent_again_only_when_something_has_changed(start):
    status = {"run": TRAINING["run"], "training": {**TRAINING["training"]}}
    ask = start(status=lambda: status)
    response, text = ask("/view")
    again, nothing = ask("/view", **{"If-None-Match": response.headers["ETag"]})
    assert (again.status, nothing) == (304, "")
    status["training"]["step"] = 38
    changed, later = ask("/view", **{"If-None-Match": response.headers["ETag"]})
    assert changed.status == 200
    assert ("37/120" in text, "38/120" in later) == (True, True)


def test_the_page_draws_the_loss_with_the_line_of_the_incumbent(start):
    status = {**TRAINING, "curve": {"train": [(1, 3.0), (37, 2.3)], "eval": [(0, 2.6)], "start": 2.6}}
    page = start(status=lambda: status)("/")[1]
    assert "the incumbent&#39;s validation loss" in page or "the incumbent's validation loss" in page
    assert 'aria-label="Loss: training loss 3.000 at step 1, 2.300 at 37; validation loss now 2.600' in page
    assert " style=" not in page


def test_the_page_shows_decisions_refusals_and_which_version_can_be_gone_back_to(start):
    status = {
        "decisions": [
            {"verdict": "wait", "reason": "too_few_rows", "repeated": 7, "last_at": "2026-11-21T18:00:01+00:00"}
        ],
        "ingest": {"queue": {"queued": 3}, "refusals": {"binary": 2, "too_large": 1200}},
        "versions": [
            {"number": 3, "verdict": "promoted", "parent": 2, "bits_per_byte": 2.1, "judged_against": 2.2},
            {"number": 2, "verdict": "promoted", "parent": None, "bits_per_byte": 2.2, "judged_against": 2.3},
        ],
    }
    page = start(status=lambda: status)("/")[1]
    for shown in ("too few rows", "2026-11-21 18:00:01", "1,200", 'data-version="2" data-change="rollback"'):
        assert shown in page
    assert page.index("too large") < page.index("binary"), "the most frequent reason first"
    assert 'data-version="3"' not in page, "it is in service"


def test_the_page_shows_text_as_text(start):
    page = start(status=lambda: {"decision": {"verdict": "wait", "reason": "<script>alert(1)</script>"}})("/")[1]
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_the_page_needs_nothing_from_elsewhere(start):
    ask = start()
    page, style, icon = ask("/")[1], ask("/static/page.css")[1], ask("/favicon.ico")[1]
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links
    assert all(link.startswith("/") and ask(link)[0].status == 200 for link in links)
    assert "url(" not in style
    assert "@import" not in style
    assert icon.startswith("<svg")


def test_a_taken_port_is_named_with_the_setting_that_changes_it():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        app = create_app(health=lambda: WELL, ready=lambda: (True, []), status=dict)
        with pytest.raises(PortTaken, match=rf"port {port} .*CODELUPE_INGEST_PORT"):
            serve(app, "127.0.0.1", port, port_setting="CODELUPE_INGEST_PORT")


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_an_error_that_names_the_setting(host):
    app = create_app(health=lambda: WELL, ready=lambda: (True, []), status=dict)
    with pytest.raises(ListenError, match=rf"{re.escape(host)}.*CODELUPE_HOST"):
        serve(app, host, 0)


def test_closing_ends_the_threads_and_frees_the_port_even_with_a_connection_held_open():
    app = create_app(health=lambda: WELL, ready=lambda: (True, []), status=dict)
    before = set(threading.enumerate())
    server = serve(app, "127.0.0.1", 0)
    held = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    held.request("GET", "/health")
    held.getresponse().read()
    server.close()
    server.close()
    held.close()
    # The last worker thread has said goodbye to its dispatcher and is about to end.
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=DEADLINE_S)
    assert set(threading.enumerate()) <= before
    serve(app, "127.0.0.1", server.port).close()


def test_closing_at_the_moment_at_which_an_answer_wakes_the_loop_writes_to_no_closed_file(monkeypatch):
    server = serve(create_app(health=lambda: WELL, ready=lambda: (True, []), status=dict), "127.0.0.1", 0)
    loop = next(thread for thread in threading.enumerate() if thread.name == f"http-{server.port}")
    write = os.write

    def woken_before(file, data):
        if threading.current_thread() is threading.main_thread() and loop.is_alive():
            write(file, data)  # as a worker does that has answered
            loop.join(timeout=DEADLINE_S)  # the loop has read it, and closed all
        return write(file, data)

    monkeypatch.setattr(os, "write", woken_before)
    server.close()
    assert not loop.is_alive()


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:{}/"), ("0.0.0.0", "http://127.0.0.1:{}/")])
def test_the_url_is_one_that_a_browser_on_this_machine_can_open(host, url, caplog):
    caplog.set_level(logging.INFO)
    server = serve(create_app(health=lambda: WELL, ready=lambda: (True, []), status=dict), host, 0)
    server.close()
    assert server.url == url.format(server.port)
    assert server.url in caplog.text


def test_nothing_in_the_package_starts_flask_s_development_server():
    sources = [path.read_text() for path in Path(server_module.__file__).parent.glob("*.py")]
    assert not [source for source in sources if re.search(r"app\.run\(|run_simple|make_server", source)]
