import pytest

from schema.jobs import (
    MOST_QUEUED,
    JobOver,
    KeyTaken,
    TooManyJobs,
    add_job,
    answer_jobs,
    cancel_all,
    cancel_job,
    fetch_job,
    fetch_jobs,
    is_cancel_requested,
    is_run_requested,
)
from schema.lines import open_line
from schema.runs import advance_run, release_run
from tests.builders import add_files, add_repository, hold_line, open_run


@pytest.fixture
def line(conn):
    return open_line(conn, name="qwen", base_model="base")


@pytest.fixture
def lease(conn):
    return hold_line(conn)


@pytest.fixture
def run(conn, line, lease):
    """Open a run that answers every job there is by then."""

    def claim():
        add_files(conn, add_repository(conn), 3)
        run = open_run(conn, line.id, lease)
        answer_jobs(conn, run)
        return run

    return claim


def ask(conn, line, **values):
    return add_job(conn, line.id, **{"forced": True, "asked_by": "alice", **values})


def state_of(conn, line, job):
    return fetch_job(conn, line.id, job.id).state


def test_a_job_is_queued_until_a_run_comes_of_it_and_ends_as_that_run_ends(conn, line, lease, run):
    job = ask(conn, line, reason="new data")
    assert (job.state, job.run, job.asked_by, job.reason) == ("queued", None, "alice", "new data")
    claimed = run()
    assert fetch_job(conn, line.id, job.id).run == 1
    assert state_of(conn, line, job) == "running"
    advance_run(conn, claimed, lease=lease, to="promoted", version=7)
    ended = fetch_job(conn, line.id, job.id)
    assert (ended.state, ended.version) == ("promoted", 7)
    assert ended.finished_at is not None


@pytest.mark.parametrize("state", ["held", "rejected", "failed"])
def test_a_job_says_how_its_run_ended_and_why(state, conn, line, lease, run):
    job = ask(conn, line)
    release_run(conn, run(), lease=lease, to=state, reason="because", waiting=False)
    assert (state_of(conn, line, job), fetch_job(conn, line.id, job.id).outcome) == (state, "because")


def test_one_run_answers_all_jobs_that_wait_and_none_that_comes_later(conn, line, run):
    first, second = ask(conn, line), ask(conn, line, asked_by="bob", forced=False)
    run()
    third = ask(conn, line)
    assert [fetch_job(conn, line.id, job.id).run for job in (first, second, third)] == [1, 1, None]


@pytest.mark.parametrize(("forced", "requested"), [(True, True), (False, False)])
def test_only_a_forced_job_asks_for_a_run_on_few_rows(forced, requested, conn, line):
    assert not is_run_requested(conn, line.id)
    job = ask(conn, line, forced=forced)
    assert is_run_requested(conn, line.id) == requested
    cancel_job(conn, line.id, job.id)
    assert not is_run_requested(conn, line.id)


def test_the_same_key_of_the_same_caller_is_the_same_job(conn, line):
    job = ask(conn, line, key="k")
    assert ask(conn, line, key="k") == job
    assert ask(conn, line, key="k", asked_by="bob").id != job.id
    assert ask(conn, line, key="other").id != job.id
    with pytest.raises(KeyTaken, match="'k' belongs to another request"):
        ask(conn, line, key="k", reason="something else")


def test_a_job_that_waits_is_cancelled_at_once(conn, line, run):
    job = ask(conn, line)
    assert cancel_job(conn, line.id, job.id).state == "cancelled"
    run()
    assert fetch_job(conn, line.id, job.id).run is None
    assert cancel_job(conn, line.id, job.id).state == "cancelled"


def test_cancelling_a_job_that_runs_asks_its_run_to_end_and_no_other(conn, line, lease, run):
    job = ask(conn, line)
    claimed = run()
    assert cancel_job(conn, line.id, job.id).state == "running"
    assert is_cancel_requested(conn, claimed.id)
    release_run(conn, claimed, lease=lease, to="failed", reason="cancelled", waiting=False)
    assert state_of(conn, line, job) == "cancelled"
    assert not is_cancel_requested(conn, run().id)


def test_a_job_that_has_ended_cannot_be_cancelled(conn, line, lease, run):
    job = ask(conn, line)
    advance_run(conn, run(), lease=lease, to="promoted", version=1)
    with pytest.raises(JobOver, match="has ended: promoted"):
        cancel_job(conn, line.id, job.id)


def test_a_job_of_another_line_is_not_seen(conn, line):
    other = open_line(conn, name="other", base_model="base")
    job = ask(conn, line)
    assert fetch_job(conn, other.id, job.id) is None
    with pytest.raises(LookupError, match=job.id):
        cancel_job(conn, other.id, job.id)


def test_cancelling_all_ends_the_open_run_and_what_waits(conn, line, run):
    claimed = run()
    job = ask(conn, line)
    cancelled, num_jobs = cancel_all(conn, line.id)
    assert (cancelled.id, num_jobs, state_of(conn, line, job)) == (claimed.id, 1, "cancelled")


def test_jobs_are_listed_newest_first_and_page_by_page(conn, line):
    jobs = [ask(conn, line) for _ in range(5)]
    page = fetch_jobs(conn, line.id, limit=2)
    rest = fetch_jobs(conn, line.id, limit=9, before=page[-1].number)
    assert [job.id for job in page + rest] == [job.id for job in reversed(jobs)]


def test_no_more_than_so_many_jobs_wait(conn, line):
    for _ in range(MOST_QUEUED):
        ask(conn, line)
    with pytest.raises(TooManyJobs, match=f"{MOST_QUEUED} jobs wait"):
        ask(conn, line)
