import io
import logging
import threading

import pytest

from monitoring.logs import setup_logging
from monitoring.progress import Progress, Trend, format_duration


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


class Clock:
    """A clock that goes when told."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name == "monitoring.progress"]


@pytest.mark.parametrize(
    ("losses", "mean", "arrow"),
    [
        ([3.0], 3.0, "→"),
        ([3.0, 2.0], 2.5, "→"),  # nothing to compare with yet
        ([3.0] * 10 + [2.0] * 10, 2.0, "↓"),
        ([2.0] * 10 + [3.0] * 10, 3.0, "↑"),
        ([2.0, 2.001] * 10, 2.0005, "→"),
        ([9.0] * 50 + [2.0] * 20, 2.0, "→"),  # older ones are forgotten
    ],
)
def test_the_trend_compares_the_last_ten_losses_with_the_ten_before(losses, mean, arrow):
    trend = Trend()
    for loss in losses:
        trend.add(loss)
    assert (pytest.approx(trend.mean), trend.arrow) == (mean, arrow)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (59.6, "1m00s"), (187, "3m07s"), (3600, "1h00m"), (7499, "2h04m"), (360000, "100h00m")],
)
def test_a_duration_is_short_and_readable(seconds, text):
    assert format_duration(seconds) == text


def test_without_a_terminal_it_logs_the_first_the_due_and_the_last_figure(lines):
    clock = Clock()
    with Progress(stream=io.StringIO(), every_s=10, now=clock) as progress:
        task = progress.task("training", total=100)
        for step in range(1, 26):
            clock.now_s += 1
            task.update(step, loss=3.0)
    assert [line.split()[1] for line in lines()] == ["0/100", "10/100", "20/100", "25/100"]


def test_a_line_tells_step_loss_trend_mean_speed_and_time_left(lines):
    with Progress(stream=io.StringIO(), every_s=0) as progress:
        progress.task("training", total=120).update(7, loss=2.31, tokens_per_s=9123.4, eta_s=187.0)
    assert lines()[1] == "training 7/120 loss 2.3100 → mean 2.3100, 9,123 tokens/s, ETA 3m07s"


def test_the_time_left_follows_the_pace_when_nobody_gives_it(lines):
    clock = Clock()
    with Progress(stream=io.StringIO(), every_s=0, now=clock) as progress:
        task = progress.task("files", total=100)
        clock.now_s += 30
        task.update(25)
    assert "ETA 1m30s" in lines()[1]


def test_a_task_of_unknown_length_has_no_end_and_no_time_left(lines):
    with Progress(stream=io.StringIO(), every_s=0) as progress:
        progress.task("files").update(25, rows=20)
    assert lines()[1] == "files 25 rows 20"


def test_the_figures_are_fields_of_the_log_record(caplog):
    caplog.set_level(logging.INFO)
    with Progress(stream=io.StringIO(), every_s=0) as progress:
        progress.task("training", total=120).update(7, loss=2.5)
    events = [(record.event, record.figures["step"]) for record in caplog.records]
    assert events == [("progress", 0), ("progress", 7), ("progress_done", 7)]
    assert caplog.records[1].figures == {"task": "training", "step": 7, "total": 120, "loss": 2.5}


def test_a_task_is_finished_once_and_also_when_it_breaks(lines):
    def break_in_the_middle(progress):
        with progress:
            first = progress.task("ingest", total=2)
            first.done()
            first.done()
            progress.task("training", total=3)
            raise KeyError

    with pytest.raises(KeyError):
        break_in_the_middle(Progress(stream=io.StringIO(), every_s=1e9))
    assert [line.split()[:2] for line in lines()] == [
        ["ingest", "0/2"],
        ["ingest", "0/2"],
        ["training", "0/3"],
        ["training", "0/3"],
    ]


def test_on_a_terminal_two_tasks_have_bars_and_log_lines_appear_above_them(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    root = logging.getLogger()
    before = list(root.handlers)
    terminal = Terminal()
    setup_logging(stream=terminal)
    with Progress(stream=terminal) as progress:
        training, ingest = progress.task("training", total=10), progress.task("ingest")
        training.update(3, loss=2.5, tokens_per_s=900.0)
        ingest.update(40, rows=12)
        logging.getLogger("codelupe.tests").warning("a line between")
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
    text = terminal.getvalue()
    assert "3/10" in text
    assert "rows 12" in text
    assert "a line between" in text
    assert text.rindex("a line between") < text.rindex("3/10")
    assert '"event"' not in text


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch, lines):
    monkeypatch.setenv("TERM", "dumb")
    with Progress(stream=Terminal(), every_s=0) as progress:
        progress.task("training", total=10).update(3)
    assert lines()[1].startswith("training 3/10")


def test_threads_may_report_at_the_same_time(lines):
    with Progress(stream=io.StringIO(), every_s=1e9) as progress:

        def work(name):
            task = progress.task(name, total=200)
            for step in range(1, 201):
                task.update(step)
            task.done()

        threads = [threading.Thread(target=work, args=(name,)) for name in ("ingest", "training")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(lines()) == ["ingest 0/200 ", "ingest 200/200 ", "training 0/200 ", "training 200/200 "]
