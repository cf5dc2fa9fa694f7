"""A child that takes milliseconds: it looks at its members, then leaves the files of a real one behind."""

import json
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, text

from daemon.context import Context
from daemon.job import Event, Failure, ItemBits, Job
from daemon.loop import ExitCode, Loop
from daemon.supervise import Child, Outcome
from tests.daemon.conclusions import evaluation, result

BETTER = -0.05


class FakeChild:
    """Stands in for `run_child`. Trains through unless `fails` says why these items, by id, do not."""

    def __init__(self) -> None:
        self.fails: Callable[[set[int]], Failure | None] = lambda _: None
        self.seen: list[set[int]] = []  # items of each training
        self.events: list[Event] = []  # told before anything else
        self.change: Callable[[Job], float] = lambda _: BETTER  # candidate minus the others, bits per byte
        self.new_units: Callable[[Job], list[ItemBits]] = lambda _: []  # judged beside those of every round

    def __call__(self, verb: str, job: Path, child: Child, *, stop_grace_s: float) -> Outcome:
        for event in self.events:
            child.on_event(event)
        if verb == "evaluate":
            told = Job.model_validate_json((job / "job.json").read_text())
            models = ("base",) if told.incumbent is None else ("base", "incumbent")
            found = evaluation(self.change(told), spread=0.0, models=models)
            found = found.model_copy(update={"items": [*found.items, *self.new_units(told)]})
            (job / "evaluation.json").write_text(found.model_dump_json())
            return "done"
        items = {json.loads(line)["item_id"] for line in (job / "members.jsonl").read_text().splitlines()}
        self.seen.append(items)
        if (failure := self.fails(items)) is not None:
            (job / "error.json").write_text(failure.model_dump_json())
            return "failed"
        (job / "adapter").mkdir(exist_ok=True)
        (job / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
        (job / "result.json").write_text(result().model_dump_json())
        return "done"


def loop_of(ctx: Context) -> Loop:
    """Return the loop that a service would run on this context."""
    return Loop(ctx, once=False, exit_code=ExitCode.OK)


def let_back_off_pass(engine: Engine) -> None:
    """Make the database believe that the back-off of every line is over."""
    with engine.begin() as conn:
        conn.execute(text("UPDATE lines SET not_before = now()"))
