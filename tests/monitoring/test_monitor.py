"""The terminal monitor against services that are silent, hostile, or something else."""

import datetime as dt
import io
import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from rich.cells import cell_len
from rich.console import Console

from monitoring.client import Service, check_url
from monitoring.config import MonitoringSettings
from monitoring.frame import describe_line, draw_frame
from monitoring.monitor import monitor
from monitoring.server import create_app, serve
from tests.monitoring.fake_daemon import DECISIONS, STATUS, FakeDaemon
from tests.waiting import DEADLINE_S

NOW = dt.datetime.now(dt.UTC)
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\x00[red]\u202e"


@pytest.fixture
def fake():
    daemon = FakeDaemon()
    yield daemon
    daemon.close()


@pytest.fixture
def service(fake):
    with Service(fake.url, timeout_s=DEADLINE_S) as service:
        yield service


def draw(look, width=100, now=NOW):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(draw_frame(look, now, width))
    return console.file.getvalue()


def ask(url, *words, **settings):
    done = CliRunner().invoke(monitor, [*words, url], obj=SimpleNamespace(monitoring=MonitoringSettings(**settings)))
    return done.exit_code, done.output


@pytest.mark.parametrize(
    "shown",
    [
        "codelupe micro, tiny on cpu",
        "run 4: training, train",
        "37/120, 31%, epoch 0.31",
        "2.3123 ↓, mean of 10 steps 2.4000, validation 2.5000",
        "learning rate 1.00e-04, 9,123 tokens/s",
        "elapsed, ETA 1m23s",
        "GPU 0     NVIDIA GeForce RTX 5090, 97% busy, 27.0/32.0 GiB, 61 °C, 310/575 W",
        "30 of 100 new rows, the rest in 5m00s",
        "version   3, 2.179 bits per byte, made",
        "decisions train: threshold reached",
    ],
)
def test_a_frame_shows(shown, service):
    assert shown in draw(service.look())


@pytest.mark.parametrize("width", [20, 40, 79])
def test_a_frame_fits_a_narrow_terminal(width, service):
    address, *lines = draw(service.look(), width).splitlines()
    assert max(map(cell_len, (address, *lines))) <= width
    assert "…" not in "".join(lines), "only the address is cut"


def test_what_a_service_says_steers_no_terminal(fake, service):
    decision = {"verdict": HOSTILE, "reason": HOSTILE}
    changes = {"line": HOSTILE, "device": HOSTILE, "training": {"phase": HOSTILE}, "decisions": [decision]}
    card = {"gpu": HOSTILE, "name": HOSTILE}
    fake.answers["/status"] = (200, {**STATUS, **changes, "gpus": [card]})
    fake.answers["/v1/decisions"] = (403, {"detail": HOSTILE})
    look = service.look()
    fake.answers["/status"] = (500, {"detail": HOSTILE})
    for words in (draw(look, 300), describe_line(look, NOW), draw(service.look(), 300)):
        assert "owned" in words
        assert [letter for letter in words.replace("\n", "") if not letter.isprintable()] == []
    fake.answers["/status"] = (200, {**STATUS, **changes})
    _, words = ask(fake.url, "--once", "--json")
    assert [letter for letter in words.removesuffix("\n") if not letter.isprintable()] == []
    assert json.loads(words)["status"]["line"] == HOSTILE


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"x" * (5 << 20), "more than 4 MiB"),
        (200, b"<html>", "not what a codelupe daemon says"),
        (200, b"[" * 100_000, "not what a codelupe daemon says"),
        (200, b'{"line": NaN}', "not what a codelupe daemon says"),
        (200, {"ingest": {}}, "not what a codelupe daemon says: line: Field required"),
        (200, {**STATUS, "training": {"eta_s": 1e300}}, "training.eta_s"),
        (200, {**STATUS, "run": {**STATUS["run"], "created_at": "0001-01-01T00:00:00+12:00"}}, "run.created_at"),
        (302, b"", "HTTP 302"),
        (500, {"detail": "a fault"}, "HTTP 500: a fault"),
        (503, [1], "HTTP 503"),
    ],
    ids=[
        "flood",
        "page",
        "depth",
        "no-number",
        "ingest",
        "for-ever",
        "past",
        "moved",
        "fault",
        "list",
    ],
)
def test_what_is_no_answer_is_said_and_asked_again(status, body, words, fake, service):
    service.look()
    fake.answers["/status"] = (status, body)
    silent = service.look()
    later = silent.silent_since + dt.timedelta(seconds=42)
    assert words in silent.error
    assert "no answer for 42s, asking on" in draw(silent, 200, later)
    assert "37/120" in draw(silent), "the last that was seen is still there"
    fake.answers["/status"] = (200, {**STATUS, "current_version": 4})
    assert (service.look().error, service.look().status.current_version) == ("", 4)


@pytest.mark.parametrize(
    ("status", "timeout_s", "words"),
    # Drops that are late for once are no silence.
    [(0, 0.3, "nothing within 0.3 s"), (-1, 2, "no whole answer within 2 s")],
    ids=["silence", "drops"],
)
def test_nobody_is_waited_for_longer_than_the_time_out(status, timeout_s, words, fake):
    fake.answers["/status"] = (status, STATUS)
    with Service(fake.url, timeout_s=timeout_s) as service:
        assert words in service.look().error


def test_a_service_that_went_away_is_found_again_when_it_is_back():
    first = FakeDaemon()
    with Service(first.url) as service:
        assert service.look().error == ""
        first.close()
        gone = [service.look() for _ in range(2)]
        assert all("refused" in look.error for look in gone)
        assert gone[0].silent_since == gone[1].silent_since
        second = FakeDaemon(first.port)
        try:
            assert service.look().error == ""
        finally:
            second.close()


def test_what_has_not_changed_is_not_sent_again():
    status, answers = dict(STATUS), []
    app = create_app(health=dict, ready=lambda: (True, []), status=lambda: status, registry=CollectorRegistry())

    @app.after_request
    def watch(response):
        answers.append(response.status_code)
        return response

    server = serve(app, "127.0.0.1", 0)
    try:
        with Service(server.url.rstrip("/")) as service:
            service.look()
            status["uptime_s"] += 2
            assert service.look().status.current_version == 3
            status["current_version"] = 4
            assert service.look().status.current_version == 4
    finally:
        server.close()
    assert answers[::2] == [200, 304, 200]


def test_decisions_that_are_refused_come_from_the_status_and_the_refusal_is_said(fake, service):
    fake.answers["/v1/decisions"] = (401, {"detail": "send Authorization: Bearer TOKEN"})
    shown = draw(service.look())
    assert "11-21 17:00:00 UTC wait: too few rows (7 times)" in shown
    assert "HTTP 401: send Authorization: Bearer TOKEN" in shown


def test_the_token_of_the_settings_is_sent_and_shown_nowhere(fake):
    status, shown = ask(fake.url, "--once", api_token=SecretStr("codelupe_hidden"))
    assert status == 0
    assert [headers["Authorization"] for _, headers in fake.asked] == ["Bearer codelupe_hidden"] * 2
    assert "hidden" not in shown


@pytest.mark.parametrize(
    "url", ["http://me:hidden@host:1", "ftp://host", "http://", "http://host:99999", "http://[", "http://host/?hidden"]
)
def test_an_address_that_cannot_be_asked_is_refused_without_repeating_a_secret(url):
    with pytest.raises(ValueError, match=r"^(?!.*hidden).*address") as error:
        check_url(url)
    assert "hidden" not in str(error.value)
    assert ask(url, "--once")[0] == 2


def test_once_shows_a_frame_and_its_exit_status_says_whether_anybody_answered(fake):
    status, shown = ask(fake.url.removeprefix("http://"), "--once")
    assert (status, "37/120" in shown) == (0, True)
    fake.answers["/status"] = (500, b"")
    assert ask(fake.url, "--once")[0] == 1
    status, words = ask(fake.url, "--once", "--json")
    assert (status, json.loads(words)["error"], json.loads(words)["status"]) == (1, "HTTP 500", None)


def test_json_has_both_answers_as_they_came(fake):
    document = json.loads(ask(fake.url, "--once", "--json")[1])
    assert (document["status"], document["decisions"], document["error"]) == (STATUS, DECISIONS, None)
