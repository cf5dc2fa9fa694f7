"""The operations of the API, one function each: from a call to its answer. Schema and daemon do the work."""

from typing import Any, TypeVar

from daemon.api import answers as d
from daemon.api.calls import Call, Refusal
from daemon.api.requests import NewSource
from daemon.promotion import CurrentAlready, NoSuchVersion, Overtaken, Verdict, make_current
from daemon.publish import DamagedVersion
from schema.addresses import parse_address
from schema.jobs import JobOver, KeyTaken, TooManyJobs, add_job, cancel_job, fetch_job, fetch_jobs
from schema.lines import set_paused
from schema.listings import list_decisions, list_repositories, list_versions
from schema.opt_outs import fetch_opt_outs, is_opted_out
from schema.repositories import add_source
from schema.search import SearchTimeout, search

T = TypeVar("T")


def fine_tune(call: Call) -> d.Job:
    """Ask for a run on whatever is pending."""
    return _ask(call, forced=True)


def retrain(call: Call) -> d.Job:
    """Ask for the next run."""
    return _ask(call, forced=call.body.force)


def _ask(call: Call, *, forced: bool) -> d.Job:
    try:
        job = add_job(
            call.conn,
            call.line.id,
            forced=forced,
            asked_by=call.caller,
            reason=call.body.reason,
            key=call.key,
        )
    except KeyTaken as error:
        raise Refusal(409, "key-taken", str(error)) from error
    except TooManyJobs as error:
        raise Refusal(429, "too-many-jobs", str(error), headers={"Retry-After": "60"}) from error
    return d.Job.of(job)


def list_jobs(call: Call) -> d.Jobs:
    """List jobs."""
    found = fetch_jobs(call.conn, call.line.id, limit=call.query.limit + 1, before=call.query.before)
    page, following = _cut(found, call.query.limit)
    return d.Jobs(jobs=[d.Job.of(job) for job in page], next=None if following is None else str(following.number))


def show_job(call: Call) -> d.Job:
    """Show one job."""
    job = fetch_job(call.conn, call.line.id, call.path.job_id)
    if job is None:
        raise Refusal(404, "no-such-job", f"line {call.line.name} has no job {call.path.job_id}")
    return d.Job.of(job)


def cancel(call: Call) -> d.Job:
    """Cancel one job."""
    try:
        return d.Job.of(cancel_job(call.conn, call.line.id, call.path.job_id))
    except LookupError as error:
        raise Refusal(404, "no-such-job", f"line {call.line.name} has no job {call.path.job_id}") from error
    except JobOver as error:
        raise Refusal(409, "job-over", str(error)) from error


def pause(call: Call) -> d.Control:
    """Pause the line."""
    set_paused(call.conn, call.line.id, True)
    return d.Control(line=call.line.name, paused=True)


def resume(call: Call) -> d.Control:
    """Let the line go on."""
    set_paused(call.conn, call.line.id, False)
    return d.Control(line=call.line.name, paused=False)


def list_models(call: Call) -> d.Versions:
    """List versions."""
    rows = list_versions(call.conn, call.line.id, limit=call.query.limit + 1, before=call.query.before)
    page, following = _cut(rows, call.query.limit)
    return d.Versions(
        line=call.line.name,
        current=call.line.current_version,
        versions=[_show_version(call, row) for row in page],
        next=None if following is None else str(following["number"]),
    )


def show_model(call: Call) -> d.Version:
    """Show one version."""
    rows = list_versions(call.conn, call.line.id, limit=1, number=call.path.version)
    if not rows:
        raise _no_version(call)
    return _show_version(call, rows[0])


def _show_version(call: Call, row: dict[str, Any]) -> d.Version:
    bits = (row["gate"] or {}).get("bits_per_byte") or {}
    figures = {"bits_per_byte": bits.get("candidate"), "incumbent_bits_per_byte": bits.get("incumbent")}
    return d.Version(current=row["number"] == call.line.current_version, **figures, **row)


def promote(call: Call) -> d.Changed:
    """Make a version current."""
    return _change(call, "promoted_by_hand")


def roll_back(call: Call) -> d.Changed:
    """Go back to a version."""
    return _change(call, "rolled_back")


def _change(call: Call, verdict: Verdict) -> d.Changed:
    version = call.path.version
    try:
        previous = make_current(
            call.engine,
            call.paths,
            call.line,
            version,
            verdict=verdict,
            actor=f"api:{call.caller}",
            reason=call.body.reason,
        )
    except CurrentAlready:
        return d.Changed(current=version, previous=version, changed=False)
    except NoSuchVersion as error:
        raise _no_version(call) from error
    except Overtaken as error:
        raise Refusal(409, "overtaken", str(error)) from error
    except DamagedVersion as error:
        raise Refusal(409, "damaged-version", str(error)) from error
    return d.Changed(current=version, previous=previous, changed=True)


def _no_version(call: Call) -> Refusal:
    return Refusal(404, "no-such-version", f"line {call.line.name} has no version {call.path.version}")


def show_repositories(call: Call) -> d.Repositories:
    """List sources."""
    query = call.query
    rows = list_repositories(call.conn, limit=query.limit + 1, before=query.before, state=query.state)
    page, following = _cut(rows, query.limit)
    shown = [d.Repository.model_validate(row) for row in page]
    return d.Repositories(repositories=shown, next=None if following is None else str(following["id"]))


def add_sources(call: Call) -> d.AddedSources:
    """Queue git repositories."""
    opted_out = fetch_opt_outs(call.conn)
    return d.AddedSources(sources=[_add_source(call, new, opted_out) for new in call.body.sources])


def _add_source(call: Call, new: NewSource, opted_out: list[str]) -> d.AddedSource:
    address = parse_address(new.source)
    if is_opted_out(address.url.partition("://")[2].partition("/")[2], opted_out):
        return d.AddedSource(source=address.url, outcome="opted_out", id=None)
    number, is_new = add_source(
        call.conn,
        source=address.url,
        kind="git",
        host=address.host,
        owner=address.owner,
        name=address.name,
        licence=new.licence,
        priority=new.priority,
    )
    return d.AddedSource(source=address.url, outcome="added" if is_new else "known", id=number)


def show_decisions(call: Call) -> d.Decisions:
    """List decisions."""
    rows = list_decisions(call.conn, call.line.id, limit=call.query.limit + 1, before=call.query.before)
    page, following = _cut(rows, call.query.limit)
    shown = [d.Decision(first_at=row["created_at"], **row) for row in page]
    return d.Decisions(decisions=shown, next=None if following is None else str(following["id"]))


def look_for(call: Call) -> d.Hits:
    """Search repositories and files."""
    query = call.query
    asked = {name: getattr(query, name) for name in ("kind", "language", "licence", "state", "limit", "cursor")}
    try:
        page = search(call.conn, query.q, **asked)
    except SearchTimeout as error:
        raise Refusal(503, "search-too-long", str(error)) from error
    except ValueError as error:  # what cannot be looked for
        raise Refusal(422, "no-search", str(error), errors=[{"where": "query.q", "message": str(error)}]) from error
    hits = [d.Hit.model_validate(hit, from_attributes=True) for hit in page.hits]
    return d.Hits(hits=hits, next=page.next_cursor)


def _cut(found: list[T], limit: int) -> tuple[list[T], T | None]:
    """Return a page, and its last entry where another page follows."""
    page = found[:limit]
    return page, page[-1] if len(found) > limit else None
