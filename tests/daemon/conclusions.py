"""A run that is trained and evaluated, without the training: the files that the child would have left."""

import random

from daemon.context import Context
from daemon.job import EvaluationResult, ItemBits, Result
from daemon.tick import tick
from schema.runs import Run, advance_run, fetch_open_run

NUM_FILES = 24


def result(**values: object) -> Result:
    """Make the result of a training that went well."""
    defaults = {
        "steps": 10,
        "steps_planned": 10,
        "tokens": 5000,
        "completion_tokens": 2000,
        "seconds": 2.0,
        "tokens_per_s": 2500.0,
        "num_samples": 40,
        "packing_density": 0.98,
        "final_loss": 2.0,
        "best_eval_loss": 2.1,
        "best_step": 10,
        "num_evals": 8,
        "stopped_early": False,
        "peak_bytes": 1 << 20,
        "trainable_parameters": 1000,
        "base_revision": "abc",
        "tokenizer_digest": "def",
        "attention": "sdpa",
        "digests": {},
        "versions": {"torch": "2.13.0"},
    }
    return Result.model_validate(defaults | values)


def evaluation(change: float, *, spread: float = 0.01, models: tuple[str, ...] = ("base",)) -> EvaluationResult:
    """Make an evaluation in which the candidate needs `change` bits per byte more than the others."""
    chance = random.Random(1)
    items = []
    for number in range(NUM_FILES):
        bits = 2000.0 + chance.uniform(-50, 50)
        candidate = bits + 1000 * (change + chance.uniform(-spread, spread))
        others = dict.fromkeys(models, bits)
        items.append(
            ItemBits(
                item_id=number,
                unit=f"unit_{number}",
                language="python",
                num_bytes=1000,
                num_tokens=300,
                bits={**others, "candidate": candidate},
            )
        )
    return EvaluationResult(items=items, seconds=1.0)


def bring_to_evaluating(ctx: Context) -> Run:
    """Let the daemon claim and prepare a run, then leave behind what a training child would."""
    assert tick(ctx), ctx.live.decision  # decide and claim
    assert tick(ctx)  # prepare the job
    lease = ctx.leadership.take(ctx.line_lease_name)
    with ctx.engine.begin() as conn:
        run = fetch_open_run(conn, ctx.live.run.line_id)
        run = advance_run(conn, run, lease=lease, to="evaluating", figures={"training": result().model_dump()})
    job = ctx.paths.job(run.number)
    (job / "adapter").mkdir()
    (job / "adapter" / "adapter_model.safetensors").write_bytes(b"weights %d" % run.number)
    (job / "adapter" / "adapter_config.json").write_text("{}")
    (job / "result.json").write_text(result().model_dump_json())
    return run


def conclude_with(ctx: Context, change: float, **values: object) -> Run:
    """Let a run end with an evaluation in which the candidate differs by `change`; return the run as it was."""
    run = bring_to_evaluating(ctx)
    models = ("base",) if run.parent_version is None else ("base", "incumbent")
    text = evaluation(change, models=models, **values).model_dump_json()
    (ctx.paths.job(run.number) / "evaluation.json").write_text(text)
    assert tick(ctx)
    return run
