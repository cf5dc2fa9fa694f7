"""A daemon whose database goes away at any moment: it waits, says so, loses nothing, and goes on by itself."""

import errno
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa
from apscheduler.events import EVENT_JOB_EXECUTED

from daemon.child import Supervised
from daemon.clock import JumpWatch, start_clock
from daemon.config import DaemonSettings
from daemon.context import Led
from daemon.leadership import Leadership
from daemon.loop import ExitCode, Loop
from daemon.status import Reporter
from monitoring.metrics import REGISTRY
from monitoring.server import create_app, serve
from schema.audit import audit
from schema.database import create_engine, describe_outage, is_outage
from schema.lines import back_off_left_s, fetch_line
from schema.listings import list_calls, record_call
from schema.runs import fetch_runs
from schema.stalls import cut_when_stopped
from schema.versions import fetch_promotions, fetch_versions
from tests.daemon.conclusions import bring_to_evaluating, conclude_with, evaluation
from tests.proxy import Proxy
from tests.waiting import DEADLINE_S, close, wait_for

BETTER = -0.05


@pytest.fixture
def proxy(database_url):
    with Proxy(database_url) as proxy:
        yield proxy


@pytest.fixture
def engine(proxy):
    """All that the daemon does goes through the proxy."""
    engine = create_engine(proxy.url, application_name="daemon")
    yield engine
    close(engine)


@pytest.fixture
def direct(database_url):
    """The test's own look at the database."""
    engine = create_engine(database_url, application_name="tests")
    yield engine
    close(engine)


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes)


@pytest.fixture
def loop(ctx):
    return Loop(ctx, once=False, exit_code=ExitCode.OK)


def figures(direct):
    """Return the runs' states, newest first, the versions' verdicts and the number of promotions; all accounted for."""
    with direct.connect() as conn:
        assert audit(conn).rows_unaccounted == 0
        line = fetch_line(conn, "micro")
        runs = [run.state for run in fetch_runs(conn, line.id, limit=9)]
        versions = [one["verdict"] for one in fetch_versions(conn, line.id)]
        return runs, versions, len(fetch_promotions(conn, line.id))


def bring_to_verdict(ctx):
    """Leave a run whose evaluation lies in its job directory, so that the next tick concludes it."""
    run = bring_to_evaluating(ctx)
    (ctx.paths.job(run.number) / "evaluation.json").write_text(evaluation(BETTER).model_dump_json())


@pytest.mark.parametrize("done", [False, True], ids=["before it", "after it"])
def test_a_claim_cut_off_at_its_commit_leaves_one_run_or_none(done, proxy, loop, ctx, direct, rows):
    rows()
    proxy.cut_at_commit("INSERT INTO training_run_items", done=done)

    assert not loop.step()

    assert proxy.was_cut.is_set()
    assert ctx.live.database_error is not None
    assert figures(direct)[0] == (["claimed"] if done else [])
    assert loop.step()
    assert ctx.live.database_error is None
    # The next tick finds the run and goes on with it, or claims it now.
    assert figures(direct)[0] == (["training"] if done else ["claimed"])


@pytest.mark.parametrize("done", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("commit", ["max(versions.number)", "INSERT INTO versions"], ids=["its number", "its verdict"])
def test_a_publication_cut_off_at_a_commit_has_exactly_one_outcome(commit, done, proxy, loop, ctx, direct, rows):
    rows()
    bring_to_verdict(ctx)
    proxy.cut_at_commit(commit, done=done)

    assert not loop.step()

    assert proxy.was_cut.is_set()
    assert ctx.live.database_error is not None
    loop.step()
    assert ctx.live.database_error is None
    assert figures(direct) == (["promoted"], ["promoted"], 1)
    assert ctx.live.finished.state == "promoted"
    assert ctx.live.current_version == 1


def test_a_tick_that_cannot_read_waits_and_the_next_one_goes_on(proxy, loop, ctx, direct, rows):
    rows()
    proxy.go_away()

    assert not loop.step()
    loop.heartbeat()

    assert ctx.live.database_error is not None
    proxy.come_back()
    assert loop.step()
    assert ctx.live.database_error is None
    assert figures(direct)[0] == ["claimed"]


def test_connections_that_were_cut_meanwhile_are_replaced_unnoticed(proxy, loop, ctx, rows):
    rows()
    assert loop.step()
    proxy.cut()

    assert loop.step()

    assert ctx.live.database_error is None


def test_a_statement_that_takes_too_long_is_cancelled_and_the_loop_goes_on(loop, ctx, direct, proxy, rows):
    rows()
    slow = create_engine(proxy.url, application_name="daemon", statement_timeout_s=1)
    impatient = Loop(_with_engine(ctx, slow), once=False, exit_code=ExitCode.OK)
    with direct.begin() as conn:
        conn.execute(sa.text("LOCK TABLE lines"))
        assert not impatient.step()
    assert ctx.live.database_error is None  # it is there, and slow

    assert impatient.step()
    close(slow)


def _with_engine(ctx, engine):
    return replace(ctx, engine=engine, leadership=Leadership(engine, "daemon", 60))


def test_health_answers_from_memory_while_the_database_stalls(proxy, loop, ctx, rows):
    rows()
    reporter = Reporter(ctx, _Settings(ctx.settings))
    app = create_app(health=reporter.health, ready=reporter.ready, status=reporter.status, registry=REGISTRY)
    server = serve(app, "127.0.0.1", 0)
    proxy.stall()
    stalled = threading.Thread(target=loop.step)
    stalled.start()
    try:
        for page in ("health", "metrics", "status"):
            with urllib.request.urlopen(server.url + page, timeout=DEADLINE_S) as answer:
                assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="503"):  # the first tick is not over
            urllib.request.urlopen(server.url + "ready", timeout=DEADLINE_S)
        assert stalled.is_alive()
    finally:
        proxy.come_back()
        stalled.join()
        server.close()
    assert ctx.live.decision == ("train", "threshold_reached")


def test_a_child_goes_on_and_obeys_a_stop_while_the_database_stalls(proxy, loop, ctx, rows, monkeypatch):
    monkeypatch.setattr("daemon.child._STALLED_S", 0.0)
    rows()
    assert loop.step()
    assert loop.step()
    run = ctx.live.run
    led = Led(ctx, ctx.leadership.take(ctx.line_lease_name), run.line_id)
    child = Supervised(led, run, ctx.leadership.take(ctx.device.lease))
    proxy.stall()
    orders = []

    def supervise():
        orders.extend([child.obey(), child.obey()])
        ctx.stop.set()
        orders.append(child.obey())

    supervisor = threading.Thread(target=supervise, daemon=True)
    supervisor.start()
    supervisor.join(timeout=DEADLINE_S)

    assert orders == ["go_on", "go_on", "stop"]
    assert ctx.live.database_error.startswith("no answer for ")
    proxy.come_back()
    wait_for(lambda: ctx.live.database_error is None)


@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
def test_a_child_goes_on_while_a_lock_keeps_its_supervisor_waiting(limit, loop, ctx, direct, rows, monkeypatch):
    monkeypatch.setattr("daemon.child._LOOK_S", 0.0)
    rows()
    run = bring_to_evaluating(ctx)
    led = Led(ctx, ctx.leadership.take(ctx.line_lease_name), run.line_id)
    child = Supervised(led, run, ctx.leadership.take(ctx.device.lease))
    sa.event.listen(ctx.engine, "begin", lambda conn: conn.exec_driver_sql(f"SET LOCAL {limit} = '100ms'"))

    with direct.begin() as conn:
        conn.execute(sa.text("LOCK TABLE lines"))  # as a migration does
        wait_for(lambda: child.obey() == "go_on" and "timeout" in (ctx.live.database_error or ""))

    wait_for(lambda: child.obey() == "go_on" and ctx.live.database_error is None)
    assert child.obey() == "go_on"


def test_the_hourly_tidying_keeps_as_many_api_calls_as_the_settings_say(loop, ctx, direct):
    with direct.begin() as conn:
        for _ in range(3):
            record_call(conn, token="a", operation="pause", path="/", address="::1", status=200)
    ctx.settings = ctx.settings.model_copy(update={"api_log_rows": 1})

    loop.tidy()

    with direct.connect() as conn:
        assert [one["id"] for one in list_calls(conn, limit=9)] == [3]


def test_a_start_that_takes_hours_is_no_stuck_loop(ctx):
    reporter = Reporter(ctx, _Settings(ctx.settings), _started=time.monotonic() - 7200)
    ctx.live.database_away("connection refused")

    health = reporter.health()

    assert (health["status"], health["details"]) == ("degraded", {"database": "connection refused"})
    assert reporter.ready() == (False, ["database_away", "starting"])


class _Settings:
    """The parts that a status shows."""

    def __init__(self, daemon: DaemonSettings) -> None:
        self.daemon, self.profile, self.home = daemon, "tiny", "/nowhere"
        self.monitoring = self.database = daemon


def test_a_daemon_that_waits_for_a_stalled_database_can_be_stopped(proxy, loop, ctx, direct):
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with cut_when_stopped(ctx.engine, ctx.stop, patience_s=0.1), direct.begin() as conn:
        conn.execute(sa.text("LOCK TABLE lines"))
        stalled = threading.Thread(target=loop.step, daemon=True)
        stalled.start()
        wait_for(lambda: conn.execute(waiting).scalar_one())
        proxy.stall()

        ctx.stop.set()

        stalled.join(timeout=DEADLINE_S)
        assert not stalled.is_alive()
    assert ctx.live.database_error is not None


def test_a_stop_cuts_no_connection_that_gets_its_answers(ctx):
    with cut_when_stopped(ctx.engine, ctx.stop, patience_s=2.0):
        ctx.stop.set()
        with ctx.engine.connect() as conn:
            # Time for several looks: at each it waits for another answer.
            answers = [conn.execute(sa.text("SELECT 1 FROM pg_sleep(0.05)")).scalar_one() for _ in range(50)]
    assert answers == [1] * 50


def test_one_connection_is_enough_for_a_whole_round(proxy, make_context, settings, direct, rows):
    rows()
    single = create_engine(proxy.url, application_name="single", pool_size=1)
    ctx = _with_engine(make_context(settings), single)
    loop = Loop(ctx, once=False, exit_code=ExitCode.OK)

    conclude_with(ctx, BETTER)
    loop.heartbeat()
    loop.audit()
    loop.leave()

    assert ctx.live.database_error is None
    with direct.connect() as conn:
        count = sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'single'")
        assert conn.execute(count).scalar_one() == 1
    close(single)
    assert figures(direct) == (["promoted"], ["promoted"], 1)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            psycopg.errors.DiskFull("could not extend file"),
            "disk full on the database's machine: could not extend file",
        ),
        (psycopg.errors.OutOfMemory("out of memory"), "out of memory on the database's machine: out of memory"),
        (psycopg.errors.TooManyConnections("sorry"), "too many connections to the database: sorry"),
        (psycopg.errors.AdminShutdown("terminating"), "the database was shut down: terminating"),
        (psycopg.errors.CannotConnectNow("starting up"), "the database takes nobody in yet: starting up"),
        (psycopg.OperationalError("connection failed\nhow"), "connection failed"),
        (psycopg.errors.LockNotAvailable("lock timeout"), None),
        (psycopg.errors.QueryCanceled("statement timeout"), None),
        (psycopg.errors.DeadlockDetected("deadlock"), None),
        (psycopg.errors.UniqueViolation("twice"), None),
        (OSError(errno.ENOSPC, "our own disk"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_outage_is_told_from_a_mistake_and_in_words(error, words):
    given = sa.exc.DBAPIError("SELECT 1", {}, error) if isinstance(error, psycopg.Error) else error

    assert is_outage(given) == (words is not None)
    if words is not None:
        assert describe_outage(given) == words


@pytest.fixture
def clock():
    """Start a clock on a job that sets the event it is given, once an hour."""
    started = []

    def start(job):
        scheduler = start_clock({"heartbeat": (job, 3600)})
        started.append(scheduler)
        return scheduler

    yield start
    for scheduler in started:
        scheduler.shutdown()


def count_jumps():
    return REGISTRY.get_sample_value("codelupe_clock_jumps_total")


@pytest.mark.parametrize("jump_s", [-3600, 3600, -3])
def test_a_clock_that_jumps_is_counted_and_stops_no_job(jump_s, clock, caplog):
    beats, begin, now = [], threading.Event(), [1_000_000.0, 50.0]
    scheduler = clock(begin.wait)
    # Counted at its end: while one runs, another would be skipped.
    scheduler.add_listener(lambda _: beats.append(1), EVENT_JOB_EXECUTED)
    begin.set()
    wait_for(lambda: len(beats) == 1)
    watch = JumpWatch(scheduler, wall=lambda: now[0], steady=lambda: now[1])
    before = count_jumps()

    now[0], now[1] = now[0] + jump_s + 5, now[1] + 5
    watch.look()

    wait_for(lambda: len(beats) == 2)
    assert count_jumps() == before + 1
    assert f"{jump_s:+.1f} s" in caplog.text
    watch.look()
    assert count_jumps() == before + 1


def test_a_clock_that_is_only_corrected_a_little_changes_nothing(clock):
    now = [1_000_000.0, 50.0]
    scheduler = clock(lambda: None)
    planned = scheduler.get_job("heartbeat").next_run_time
    watch = JumpWatch(scheduler, wall=lambda: now[0], steady=lambda: now[1])
    before = count_jumps()

    now[0] += 1.5
    watch.look()

    assert count_jumps() == before
    assert planned - scheduler.get_job("heartbeat").next_run_time < timedelta(seconds=1)


@pytest.mark.parametrize(
    ("ahead", "left_s"),
    [
        (timedelta(seconds=-1), 0),
        (timedelta(seconds=60), 60),
        (timedelta(days=1), 86_400),
        (timedelta(days=1, seconds=1), 0),
        (timedelta(days=3650), 0),
    ],
)
def test_a_back_off_that_no_clock_could_have_written_is_over(ahead, left_s, direct, ctx):
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with direct.begin() as conn:
        conn.execute(sa.text("UPDATE lines SET not_before = :until"), {"until": now + ahead})
        line = fetch_line(conn, "micro")

    assert back_off_left_s(line, now) == left_s
