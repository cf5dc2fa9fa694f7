"""Two lines on one device: each new run lets the line go first that has been waiting."""

import pytest
import sqlalchemy as sa

from daemon.turns import take_device


@pytest.fixture
def lines(make_context, settings):
    """Two daemons of different lines on the same device."""
    return [make_context(settings.model_copy(update={"line": name, "line_lease_s": 20}), name) for name in ("a", "b")]


def give_back(ctx):
    ctx.leadership.give_back(ctx.device.lease)


def test_two_lines_that_always_have_work_take_turns(lines):
    turns = [lines[0]]
    assert take_device(lines[0], new_run=True)

    for _ in range(5):
        running = turns[-1]
        waiting = next(ctx for ctx in lines if ctx is not running)
        assert take_device(waiting, new_run=True) is None
        give_back(running)
        # The line that has just finished is the quicker one to ask again.
        turns += [ctx for ctx in (running, waiting) if take_device(ctx, new_run=True)]

    assert [ctx.settings.line for ctx in turns] == ["a", "b", "a", "b", "a", "b"]


def test_a_line_alone_is_never_kept_waiting(lines):
    alone = lines[0]

    for _ in range(3):
        assert take_device(alone, new_run=True)
        give_back(alone)


def test_a_run_that_has_begun_does_not_let_others_go_first(lines):
    first, second = lines
    take_device(first, new_run=True)
    take_device(second, new_run=True)
    give_back(first)

    assert take_device(first, new_run=False)


def test_a_line_that_has_died_while_it_waited_blocks_nobody(lines, engine):
    first, dead = lines
    take_device(first, new_run=True)
    take_device(dead, new_run=True)
    give_back(first)
    assert take_device(first, new_run=True) is None

    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE leases SET until = now() WHERE name LIKE 'turn:%'"))  # nobody renews it any more

    assert take_device(first, new_run=True)
