"""Fill a run's job directory from the ledger: the members the run claimed, and the held-out items it is judged on."""

import heapq
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from daemon.config import DaemonSettings, TrainingSettings
from daemon.context import Led
from daemon.files import write_atomically, write_lines
from daemon.job import MEMBERS, TEST, VALIDATION, Item, Job
from daemon.publish import verify_folder
from schema.runs import Limits, Member, Run, fetch_held_out, stream_members
from schema.versions import fetch_version
from sourcecode.fingerprints import stable_share

_JOB = "job.json"


def prepare_job(led: Led, run: Run, *, missing_only: bool = False) -> None:
    """Write the job directory of `run`. Raises DamagedVersion when the incumbent on disk does not verify."""
    ctx = led.ctx
    folder = ctx.paths.job(run.number)
    if folder.exists() and not _belongs(folder, run):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = DaemonSettings.model_validate(run.config)
    sources = {MEMBERS: _members, VALIDATION: _validation, TEST: _test}
    for name, read in sources.items():
        if not (missing_only and (folder / name).exists()):
            write_lines(folder / name, _as_lines(read(led, run, settings)))
    write_atomically(folder / _JOB, _job(led, run, settings).model_dump_json(indent=2).encode())


def _belongs(folder: Path, run: Run) -> bool:
    try:
        return bool(json.loads((folder / _JOB).read_bytes())["uuid"] == run.uuid)
    except (FileNotFoundError, ValueError, KeyError):
        return False


def _job(led: Led, run: Run, settings: DaemonSettings) -> Job:
    ctx = led.ctx
    incumbent = None
    if run.parent_version is not None:
        incumbent = ctx.paths.version(run.parent_version)
        with ctx.engine.connect() as conn:
            row = fetch_version(conn, led.line_id, run.parent_version)
        verify_folder(incumbent, None if row is None else row["manifest_digest"])
    own_base = str(ctx.paths.job(run.number) / "base" if run.kind == "base" else ctx.paths.base)
    return Job(
        line=settings.line,
        run=run.number,
        uuid=run.uuid,
        kind="base" if run.kind == "base" else "adapter",
        seed=settings.seed + run.number,
        settings={name: getattr(settings, name) for name in TrainingSettings.model_fields},
        device=ctx.device.kind,
        base=own_base if settings.makes_base else settings.base_model,
        base_revision=None if settings.makes_base else settings.base_revision,
        incumbent=incumbent,
        replayed=settings.replay_share > 0,
        eval_max_chars=settings.max_test_chars,
    )


def _members(led: Led, run: Run, _settings: DaemonSettings) -> Iterator[Member]:
    with led.ctx.engine.connect() as conn:
        yield from stream_members(conn, run.id)


def _validation(led: Led, run: Run, settings: DaemonSettings) -> Iterator[Member]:
    return _held_out(led, run, settings, "validation")


def _test(led: Led, run: Run, settings: DaemonSettings) -> Iterator[Member]:
    return _held_out(led, run, settings, "test")


def _held_out(led: Led, _run: Run, settings: DaemonSettings, split: str) -> Iterator[Member]:
    limits = Limits(
        min_score=settings.min_quality, min_chars=settings.min_chars, max_rows=settings.max_rows, max_chars_total=None
    )
    with led.ctx.engine.connect() as conn:
        yield from choose_by_hash(fetch_held_out(conn, led.line_id, split, limits=limits), settings.max_test_chars)


def choose_by_hash(members: Iterable[Member], max_chars: int) -> list[Member]:
    """Return the members whose hashes are smallest, up to `max_chars` in all: the same ones in every round.

    New held-out rows may displace some, rounds apart stay comparable for the rest.
    """
    ordered: list[tuple[float, int, Member]] = []
    for member in members:
        heapq.heappush(ordered, (stable_share(f"{member.item_kind}:{member.item_id}"), member.item_id, member))
    chosen: list[Member] = []
    num_chars = 0
    while ordered and num_chars < max_chars:
        member = heapq.heappop(ordered)[2]
        if chosen and num_chars + len(member.content) > max_chars:
            break
        num_chars += len(member.content)
        chosen.append(member)
    return sorted(chosen, key=lambda member: member.item_id)


def _as_lines(members: Iterable[Member]) -> Iterator[str]:
    for member in members:
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
        ).model_dump_json()
