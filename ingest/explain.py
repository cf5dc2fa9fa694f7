"""`codelupe ingest explain`: how one file on disk would be judged, component by component."""

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ingest.config import Settings
from ingest.entries import show_text
from ingest.judge import Judgement, judge_file
from ingest.licensing import find_licence, find_repository
from sourcecode.filters import judge_size
from sourcecode.licences import is_allowed
from sourcecode.limits import Limits
from sourcecode.scores import WEIGHTS

_COMPONENT_WIDTH = 15


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--path",
    help="The file's path in its source, for the rules about folders."
    "  [default: its path in the git repository around it, else below the current folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def explain(settings: Settings, file: Path, path: str | None, as_json: bool) -> None:
    """Say how FILE would be judged, and why: the same code as the worker's."""
    judged, origin = (path, "as --path says") if path else place_file(file)
    report = explain_file(file, judged, settings.ingest.limits).to_json()
    report["licence_allowed"] = is_allowed(report["licence"], settings.ingest.allowed_licences)
    report |= {"path_origin": origin, "weights": WEIGHTS}
    click.echo(json.dumps(report) if as_json else "\n".join(_describe(report)))


def place_file(file: Path) -> tuple[str, str]:
    """Return the path that a visit would know a file by, and in words what it is below.

    Outside of a git repository and of the current folder all its folders count, for its source may be any of them.
    """
    folder = file.parent.resolve()
    path, here = folder / file.name, Path.cwd()
    if top := find_repository(folder):
        return path.relative_to(top).as_posix(), f"in the git repository {top}"
    if path.is_relative_to(here):
        return path.relative_to(here).as_posix(), "below the current folder"
    return path.as_posix(), "in no git repository; --path says where it lies in its source"


def explain_file(file: Path, path: str, limits: Limits) -> Judgement:
    """Judge a file on disk as the worker would; of one that is too large no more is read than tells so."""
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        reason = "symlink" if stat.S_ISLNK(status.st_mode) else "special"
        raise click.UsageError(f"{file}: not a plain file; a visit refuses it as {reason}")
    with file.open("rb") as content:
        data = content.read(limits.max_file_bytes + 1)
    judgement = judge_file(
        path, data, limits, is_executable=bool(status.st_mode & stat.S_IXUSR), licence=find_licence(file)
    )
    refusal = judge_size(status.st_size, limits)
    return replace(judgement, detail=refusal[1]) if refusal and judgement.reason == refusal[0] else judgement


def _describe(report: dict[str, Any]) -> Iterator[str]:
    yield f"{show_text(report['path'])}: {report['language'] or 'no known language'}"
    yield f"judged by this path, {show_text(report['path_origin'])}"
    policy = "allowed" if report["licence_allowed"] else "not allowed for what the crawler finds"
    yield f"licence {report['licence'] or 'not stated'} ({show_text(report['licence_evidence'])}): {policy}"
    if not report["accepted"]:
        yield f"refused: {report['reason']} ({show_text(report['detail'])})"
        return
    yield f"accepted, score {report['score']:.1f} of 100: the sum of each component by its weight"
    yield from (f"  redacted: {place}" for place in report["redactions"])
    for name, value in report["components"].items():
        weight = report["weights"][name]
        share = f"{value:5.1f} × {weight:.2f} = {weight * value:4.1f}"
        yield f"  {name:<{_COMPONENT_WIDTH}}{share}  {_describe_details(report['details'][name])}"


def _describe_details(details: dict[str, Any]) -> str:
    return ", ".join(_describe_risks(value) if key == "risks" else f"{key} {value}" for key, value in details.items())


def _describe_risks(risks: list[dict[str, Any]]) -> str:
    return ", ".join(f"{risk['rule']} at line {risk['line']}" for risk in risks) or "no risks"
