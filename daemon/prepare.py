"""Fill a run's job directory from the ledger: the members the run claimed, and the held-out items it is judged on."""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from daemon.config import DaemonSettings, TrainingSettings, settings_of
from daemon.context import Led
from daemon.files import write_atomically, write_lines
from daemon.job import JOB, MEMBERS, TEST, VALIDATION, Item, Job
from daemon.publish import verify_folder
from schema.runs import Limits, Member, Run, fetch_held_out, stream_members
from schema.trace import current_tick
from schema.versions import fetch_version


def prepare_job(led: Led, run: Run, *, missing_only: bool = False) -> None:
    """Write the job directory of `run`. Raises DamagedVersion when the incumbent on disk does not verify."""
    ctx = led.ctx
    folder = ctx.paths.job(run.number)
    if folder.exists() and not _belongs(folder, run):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = settings_of(run.config)
    sources = {MEMBERS: _members, VALIDATION: _validation, TEST: _test}
    for name, read in sources.items():
        if not (missing_only and (folder / name).exists()):
            write_lines(folder / name, (item.model_dump_json() for item in as_items(read(led, run, settings))))
    write_atomically(folder / JOB, _job(led, run, settings).model_dump_json(indent=2).encode())


def _belongs(folder: Path, run: Run) -> bool:
    try:
        return bool(json.loads((folder / JOB).read_bytes())["uuid"] == run.uuid)
    except (FileNotFoundError, ValueError, KeyError):
        return False


def _incumbent(led: Led, run: Run) -> Path | None:
    """Return the adapter that the run is judged against, after checking every file of it."""
    if run.parent_version is None:
        return None
    with led.ctx.engine.connect() as conn:
        row = fetch_version(conn, led.line_id, run.parent_version)
    folder = led.ctx.paths.version(run.parent_version)
    verify_folder(folder, None if row is None else row["manifest_digest"])
    return folder


def _job(led: Led, run: Run, settings: DaemonSettings) -> Job:
    paths = led.ctx.paths
    if settings.makes_base and run.kind != "base":
        # A base of another database's life would give the adapter another tokenizer.
        verify_folder(paths.base, run.base_revision)
    own_base = paths.job(run.number) / "base" if run.kind == "base" else paths.base
    return Job(
        line=settings.line,
        run=run.number,
        uuid=run.uuid,
        attempt=run.attempt + 1,
        tick=current_tick(),
        decided_by=run.decided_by,
        kind="base" if run.kind == "base" else "adapter",
        seed=settings.seed + run.number,
        settings=TrainingSettings(**{name: getattr(settings, name) for name in TrainingSettings.model_fields}),
        device=led.ctx.device.kind,
        base=str(own_base) if settings.makes_base else settings.base_model,
        base_revision=None if settings.makes_base else settings.base_revision or run.base_revision,
        base_cache=paths.base_cache,
        claimed_at=run.created_at,
        incumbent=_incumbent(led, run),
        fresh=run.kind == "consolidation",
    )


def _members(led: Led, run: Run, _settings: DaemonSettings) -> Iterator[Member]:
    with led.ctx.engine.connect() as conn:
        yield from stream_members(conn, run.id)


def _validation(led: Led, _run: Run, settings: DaemonSettings) -> Iterator[Member]:
    return _held_out(led, settings, "validation")


def _test(led: Led, _run: Run, settings: DaemonSettings) -> Iterator[Member]:
    return _held_out(led, settings, "test")


def _held_out(led: Led, settings: DaemonSettings, split: str) -> Iterator[Member]:
    limits = Limits(
        min_score=settings.min_quality, min_chars=settings.min_chars, max_rows=settings.max_rows, max_chars_total=None
    )
    with led.ctx.engine.connect() as conn:
        yield from fetch_held_out(
            conn,
            led.line_id,
            split,
            limits=limits,
            max_chars=settings.max_test_chars,
            max_item_chars=settings.eval_pieces * settings.max_chars,
        )


def as_items(members: Iterable[Member]) -> Iterator[Item]:
    """Yield members as a job file has them."""
    for member in members:
        if member.content is None:
            raise RuntimeError(
                f"the content of {member.repository} {member.file_path} is gone: `codelupe train cancel`"
            )
        yield Item(
            ordinal=member.ordinal,
            item_id=member.item_id,
            role=member.role,
            content=member.content,
            sha256=member.content_sha256,
            language=member.language,
            path=member.file_path,
            repository=member.repository,
            unit=member.unit,
        )
