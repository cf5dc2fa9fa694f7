"""`codelupe train base`: a new base model, from scratch or with all weights of another one trained on."""

import json
from collections.abc import Container, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import click

from daemon.attended import run_attended
from daemon.config import Settings, TrainingSettings
from daemon.corpus import first_chars
from daemon.device import detect_device
from daemon.files import remove, write_atomically
from daemon.held_out import LARGEST_UNIT, write_material
from daemon.job import JOB, MEMBERS, SMALLER, VALIDATION, Job, Recipe, Result
from daemon.material import read_items_of
from daemon.publish import publish_folder
from daemon.reports import as_json, print_json
from monitoring.logs import setup_logging

Architecture = Literal["qwen2", "gpt2"]
JOBS = "_bases"  # beside the folders of lines, whose names begin with a letter or a digit
CHARS_PER_TOKEN = 8  # more than any text has: so much of it is read at most, what is over would not be learned
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9}
_BULKY = (JOB, MEMBERS, VALIDATION, "result.json", "checkpoints", SMALLER, "base", "tokenizer")
_TOLD = (
    *("steps", "tokens", "seconds", "tokens_per_s", "final_loss", "validation_loss", "validation_bits_per_byte"),
    *("num_samples", "packing_density"),
)


class Tokens(click.ParamType[int]):
    """A number of tokens, such as 5M."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return it as an integer."""
        try:
            number = float(str(value)[:-1]) * _UNITS[str(value)[-1].upper()] if str(value)[-1:].isalpha() else value
            tokens = int(number)
        except (ValueError, KeyError):
            tokens = 0
        if tokens < 1:
            self.fail(f"{value!r} is no number of tokens: give one such as 500K, 5M or 2.5B", param, ctx)
        return tokens


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--tokens", type=Tokens(), required=True, help="How many to learn, such as 5M; text that ends is repeated."
)
@click.option("--architecture", type=click.Choice(["qwen2", "gpt2"]), help="Of a model from scratch.  [default: qwen2]")
@click.option("--from", "source", help="Train all weights of this base instead: a folder, or a name on the hub.")
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True),
    help="Folder of text files, or JSON lines with `content`; without it the line's training side in the database.",
)  # fmt: skip
@click.option(
    "--held-out", type=click.FloatRange(0, 0.5), default=0.01, show_default=True,
    help="Share of the text, in whole repositories or files, that is measured on and not learned; 0: none.",
)  # fmt: skip
@as_json
@click.pass_obj
def base(
    settings: Settings,
    folder: Path,
    tokens: int,
    architecture: Architecture | None,
    source: str | None,
    data: Path | None,
    held_out: float,
    as_json: bool,
) -> None:
    """Make FOLDER a new base model, to be used as CODELUPE_BASE_MODEL: from scratch, or from another base.

    Sizes and how it learns are settings: CODELUPE_HIDDEN_SIZE, CODELUPE_NUM_LAYERS, CODELUPE_INTERMEDIATE_SIZE,
    CODELUPE_VOCABULARY and CODELUPE_PRETRAIN_LEARNING_RATE from scratch, CODELUPE_FULL_LEARNING_RATE with --from;
    CODELUPE_SEQUENCE_TOKENS, CODELUPE_MICRO_BATCH, CODELUPE_ACCUMULATION, CODELUPE_COMPUTE_DTYPE for both.

    The validation loss is measured at the start, now and then, and at the end; it stops nothing early: all tokens are
    learned, and the last weights are kept. The same command again goes on where it was stopped. What the database
    holds out for its gate is never read.
    """
    if source is not None and architecture is not None:
        raise click.UsageError("--from keeps the architecture of the base: leave --architecture out")
    if folder.exists():
        raise click.UsageError(f"{folder} is there already: name a new folder, a base is never overwritten")
    setup_logging(level=settings.monitoring.log_level)
    recipe = Recipe(tokens=tokens, architecture=None if source else architecture or "qwen2", held_out=held_out)
    job = _describe(settings, folder.absolute(), recipe, source)
    job_dir = settings.home / "runs" / JOBS / folder.name
    _prepare(settings, job, job_dir, data)
    if not (job_dir / "result.json").exists():
        run_attended(settings, "full", job_dir, "pre-training" if recipe.architecture else "full training")
    told = _publish(job, job_dir, folder.absolute(), str(data) if data else f"line {settings.daemon.line}")
    if as_json:
        print_json(told)
    else:
        click.echo(
            f"{folder}: {told['parameters']:,} parameters, {told['tokens']:,} tokens in {told['steps']:,} steps, loss "
            f"{told['final_loss']:.3f}, {_say_validation(told)}; use it with CODELUPE_BASE_MODEL={folder.absolute()} "
            "and a new CODELUPE_LINE"
        )


def _say_validation(told: dict[str, Any]) -> str:
    if told["validation_loss"] is None:
        return "nothing held out to measure on"
    return f"validation loss {told['validation_loss']:.3f} ({told['validation_bits_per_byte']:.3f} bits per byte)"


def _describe(settings: Settings, folder: Path, recipe: Recipe, source: str | None) -> Job:
    """Return the job: the daemon's settings, but for the rate and the decay of a training of all weights."""
    daemon = settings.daemon
    values = {name: getattr(daemon, name) for name in TrainingSettings.model_fields}
    values["learning_rate"] = daemon.full_learning_rate if source else daemon.pretrain_learning_rate
    values["weight_decay"] = daemon.pretrain_weight_decay
    return Job(
        line=daemon.line,
        run=0,
        kind="base",
        seed=daemon.seed,
        settings=TrainingSettings(**values),
        device=detect_device(settings.profile).kind,
        base=source or str(folder),
        base_revision=daemon.base_revision if source == daemon.base_model else None,
        recipe=recipe,
    )


def _prepare(settings: Settings, job: Job, job_dir: Path, data: Path | None) -> None:
    """Write the job and its text; a job that was begun is kept, and must be the same one."""
    text = job.model_dump_json(indent=2).encode()
    if (job_dir / JOB).exists():
        if (job_dir / JOB).read_bytes() != text:
            raise click.UsageError(
                f"{job_dir} was begun with other settings: go on with those, or remove that folder to begin anew"
            )
        return
    for name in _BULKY:
        remove(job_dir / name)
    job_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    assert job.recipe is not None  # noqa: S101 - made in _describe
    limit = job.recipe.tokens * CHARS_PER_TOKEN
    share = job.recipe.held_out
    with read_items_of(settings, data) as items:
        num = write_material(job_dir, first_chars(items, limit), share, job.settings.sequence_tokens)
    if share and not num:
        too_large = f"each text is more than {LARGEST_UNIT:.0%} of all, so none is held out"
        click.echo(f"there will be no validation loss: {too_large}", err=True)
    write_atomically(job_dir / JOB, text)  # last: what has one is whole


def _publish(job: Job, job_dir: Path, folder: Path, data: str) -> dict[str, Any]:
    """Move the base in place with the manifest of what it comes from; drop what only the training needed."""
    result = Result.model_validate_json((job_dir / "result.json").read_bytes())
    assert job.recipe is not None  # noqa: S101 - made in _describe
    training = result.model_dump(mode="json")
    held_out = set(_read_digests(job_dir / VALIDATION))
    manifest = {
        "made": "from scratch" if job.recipe.architecture else "by full training",
        "architecture": job.recipe.architecture,
        "from": None if job.recipe.architecture else job.base,
        "base_revision": None if job.recipe.architecture else result.base_revision,
        "data": data,
        "members_digest": _digest_members(job_dir / MEMBERS, without=held_out),
        "held_out": {"texts": len(held_out), "digest": _digest_members(job_dir / VALIDATION)},
        "tokenizer_digest": result.tokenizer_digest,
        "training": training,
        "config": job.settings.model_dump(mode="json"),
        "seed": job.seed,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    digest = publish_folder(job_dir / "base", folder, manifest, confirm=lambda: None)
    for name in _BULKY:
        remove(job_dir / name)
    told = {name: training[name] for name in _TOLD}
    return {"folder": str(folder), "parameters": result.trainable_parameters, "manifest_digest": digest, **told}


def _digest_members(path: Path, without: Container[str] = ()) -> str:
    """Return the SHA-256 over the SHA-256 of each text, in the order of the stream."""
    digest = sha256()
    for name in _read_digests(path):
        if name not in without:
            digest.update(bytes.fromhex(name))
    return digest.hexdigest()


def _read_digests(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)["sha256"]
