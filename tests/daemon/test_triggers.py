"""What starts a run besides the count of rows, in ticks on a real database, and the inputs that `why` shows."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from daemon.courtesy import Courtesy
from daemon.tick import tick
from schema.decisions import fetch_decisions
from schema.jobs import add_job
from schema.lines import fetch_line
from schema.release_tags import save_tags
from schema.runs import fetch_open_run
from schema.tables import ProcessedFile
from tests.builders import add_files, add_repository

WATCHED = "https://example.org/us/ours"


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 60, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes)


@pytest.fixture
def tick_with(make_context, settings, engine):
    """Tick once with these settings; return whether it worked, the reason and the recorded inputs."""

    def run(**changes):
        ctx = make_context(settings.model_copy(update=changes))
        worked = tick(ctx)
        ctx.leadership.give_back()
        with engine.connect() as conn:
            last = fetch_decisions(conn, fetch_line(conn, settings.line).id, limit=1)[0]
        return worked, last["reason"], last["inputs"]

    return run


def days_from_now(*numbers):
    """Return windows of whole days: 0 is today."""
    return tuple(f"{datetime.now(UTC) + timedelta(days=number):%a}".lower() for number in numbers)


def test_an_open_run_waits_in_quiet_hours_and_its_child_is_stopped_as_they_begin(make_context, engine, rows, settings):
    rows()
    ctx = make_context(settings.model_copy(update={"threshold_rows": 10}))
    assert tick(ctx)
    assert tick(ctx)
    loud, quiet = Courtesy(ctx).order(), days_from_now(-1, 0, 1)
    ctx.leadership.give_back()
    later = make_context(settings.model_copy(update={"quiet_hours": quiet}), "later")

    assert not tick(later)

    assert later.live.decision == ("wait", "quiet_hours")
    assert (loud, Courtesy(later).order()) == ("go_on", "stop")
    with engine.connect() as conn:
        run = fetch_open_run(conn, fetch_line(conn, settings.line).id)
    assert (run.state, run.attempt) == ("training", 0)


def grow_old(engine, hours):
    with engine.begin() as conn:
        conn.execute(sa.update(ProcessedFile).values(created_at=sa.func.now() - timedelta(hours=hours)))


def test_a_run_begins_inside_a_window_alone_unless_it_was_asked_for(tick_with, engine, rows, settings):
    rows()

    outside = tick_with(threshold_rows=10, train_windows=days_from_now(3))
    quiet = tick_with(threshold_rows=10, train_windows=days_from_now(-1, 0, 1), quiet_hours=days_from_now(-1, 0, 1))
    with engine.begin() as conn:
        add_job(conn, fetch_line(conn, settings.line).id, forced=True, asked_by="tests")
    asked = tick_with(threshold_rows=10, train_windows=days_from_now(3))

    assert outside[:2] == (False, "outside_window")
    assert outside[2]["missing"].startswith("runs may begin from ")
    assert (outside[2]["num_fresh"], outside[2]["in_window"]) == (10, False)
    assert quiet[:2] == (False, "quiet_hours")
    assert asked[:2] == (True, "requested")


def test_rows_that_have_waited_long_enough_are_trained_on_below_the_threshold(tick_with, engine, rows):
    rows()
    grow_old(engine, 47)
    young = tick_with(max_age_hours=48, max_age_rows=40)
    grow_old(engine, 49)

    few = tick_with(max_age_hours=48, max_age_rows=41)
    enough = tick_with(max_age_hours=48, max_age_rows=40)

    assert (young[1], few[1]) == ("too_few_rows", "too_few_rows")
    assert enough[:2] == (True, "rows_aged")
    assert enough[2]["oldest_hours"] == pytest.approx(49, abs=0.1)


def watch(engine, num, commit):
    """Store `num` changed files of the watched repository, seen at a commit."""
    with engine.begin() as conn:
        repository = add_repository(conn, WATCHED)
        for number in range(num):
            add_files(conn, repository, 1, path=f"code_{number}.py", commit=commit)


def test_a_new_release_of_a_watched_repository_starts_a_run_once(tick_with, engine, rows):
    rows()
    with engine.begin() as conn:
        watched, other = add_repository(conn, WATCHED), add_repository(conn)
        for repository in (watched, other):
            save_tags(conn, repository, ["v1.0"])
    first = tick_with(watch=(WATCHED,))
    with engine.begin() as conn:
        save_tags(conn, other, ["v1.0", "v1.1"])
    of_another = tick_with(watch=(WATCHED,))
    with engine.begin() as conn:
        save_tags(conn, watched, ["v1.0", "v1.1"])

    switched_off = tick_with(watch=(WATCHED,), watch_releases=False)
    worked, began, inputs = tick_with(watch=(WATCHED,))

    assert (first[1], of_another[1], switched_off[1]) == ("too_few_rows",) * 3
    assert (worked, began, inputs["new_releases"]) == (True, "watched_release", f"{WATCHED} v1.1")
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE training_runs SET state = 'held'"))
        add_files(conn, add_repository(conn), 1)
    assert tick_with(watch=(WATCHED,))[2]["new_releases"] == ""


@pytest.mark.parametrize(("limit", "reason"), [("watch_files", "watched_files"), ("watch_commits", "watched_commits")])
def test_changes_of_a_watched_repository_start_a_run_and_count_anew_after_it(tick_with, engine, rows, limit, reason):
    rows()
    watch(engine, 2, "first")
    one_short = tick_with(**{"watch": (WATCHED.upper(), "no/such"), limit: 3})
    # A file that is changed again counts once as a file, and for each of its commits.
    watch(engine, 3, "second")
    watch(engine, 3, "third")

    worked, began, inputs = tick_with(**{"watch": (WATCHED,), limit: 3})

    assert one_short[1] == "too_few_rows"
    assert one_short[2]["unknown_watched"] == "no/such"
    assert (worked, began) == (True, reason)
    assert (inputs["watched_files"], inputs["watched_commits"]) == (3, 3)
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE training_runs SET state = 'held'"))
    with engine.begin() as conn:
        add_files(conn, add_repository(conn), 1)
    assert tick_with(**{"watch": (WATCHED,), limit: 1})[2]["watched_files"] == 0
