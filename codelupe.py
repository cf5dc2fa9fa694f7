"""The front door: reads the configuration, gathers the packages' commands, and runs everything with `up`."""

import difflib
import fcntl
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

import click
import platformdirs
from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from daemon.config import DaemonSettings
from daemon.profiles import PROFILES
from ingest.config import IngestSettings
from monitoring.config import MonitoringSettings
from schema import failpoints
from schema.config import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy import Connection

PREFIX = "CODELUPE_"
OUR_PACKAGES = ("daemon", "ingest", "schema", "monitoring", "sourcecode")
# Read outside the settings: where the file is, and the tests' failpoints.
OTHER_VARIABLES = ("CODELUPE_CONFIG", "CODELUPE_FAILPOINTS")
RENAMED = {"recompute": "checkpointed_layers (all, 0, a number, or auto, which takes as few as fit)"}
SECTIONS: dict[str, type[BaseModel]] = {
    "database": DatabaseSettings,
    "ingest": IngestSettings,
    "daemon": DaemonSettings,
    "monitoring": MonitoringSettings,
}


class Settings(BaseSettings):
    """Everything codelupe can be told. Strongest first: environment, codelupe.toml, profile, defaults."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True, validate_default=True
    )

    home: Path = Field(default_factory=lambda: platformdirs.user_data_path("codelupe"))
    """Folder of all data: database, clones, models, runs, logs."""
    profile: str = "tiny"
    """Kind of machine; sets defaults in the other sections."""
    database: DatabaseSettings = DatabaseSettings()
    ingest: IngestSettings = IngestSettings()
    daemon: DaemonSettings = DaemonSettings()
    monitoring: MonitoringSettings = MonitoringSettings()

    @field_validator("home")
    @classmethod
    def _make_absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("profile")
    @classmethod
    def _check_profile(cls, profile: str) -> str:
        if profile not in PROFILES:
            raise ValueError(f"{profile!r} is not a profile: choose one of {', '.join(PROFILES)}")
        return profile

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- ours are flat: CODELUPE_<FIELD>
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, strongest first."""
        file = TomlConfigSettingsSource(settings_cls, toml_file=config_file(os.environ))
        return init_settings, _Environment(settings_cls), file, _Profile(settings_cls)


class _Environment(PydanticBaseSettingsSource):
    """CODELUPE_<FIELD> for a field of any section; CODELUPE_<FIELD>_FILE reads it from a file (a docker secret)."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for variable, (section, name, field) in variables().items():
            text = read_variable(variable, os.environ)
            if text is not None:
                target = found.setdefault(section, {}) if section else found
                target[name] = _parse(text, field)
        return found


class _Profile(PydanticBaseSettingsSource):
    """The profile's defaults: weaker than every other source, so the profile that won is known by now."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(PROFILES.get(str(self.current_state.get("profile", "tiny")), {}))


def config_file(environ: Mapping[str, str]) -> Path:
    """Return where the configuration file is looked for: CODELUPE_CONFIG, or codelupe.toml in the current folder."""
    return Path(environ.get("CODELUPE_CONFIG", "codelupe.toml"))


def variables() -> dict[str, tuple[str, str, FieldInfo]]:
    """Return (section, field name, field) by environment variable; the section of a top-level field is empty."""
    names: dict[str, tuple[str, str, FieldInfo]] = {}
    models: dict[str, type[BaseModel]] = {"": Settings, **SECTIONS}
    for section, model in models.items():
        for name, field in model.model_fields.items():
            if section or name not in SECTIONS:
                names[PREFIX + name.upper()] = (section, name, field)
    return names


def read_variable(variable: str, environ: Mapping[str, str]) -> str | None:
    """Return the text of a variable, from itself or from the file that <variable>_FILE names; empty ones are unset."""
    if environ.get(variable):
        return environ[variable]
    file = environ.get(variable + "_FILE")
    try:
        return Path(file).read_text().strip() if file else None
    except OSError as error:
        raise click.UsageError(f"{variable}_FILE={file}: {error.strerror}: give a readable file") from error


def _parse(text: str, field: FieldInfo) -> Any:
    """Turn a variable's text into what the field takes: a list is words between commas."""
    if get_origin(field.annotation) not in (tuple, list, frozenset, set):
        return text
    return [word.strip() for word in text.split(",") if word.strip()]


def load_settings() -> Settings:
    """Read and check the whole configuration. Raises click.UsageError naming everything that is wrong, no secret."""
    known = variables()
    names = {*known, *(f"{name}_FILE" for name in known), *OTHER_VARIABLES}
    strangers = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in names)
    problems = [_describe_unknown(name, name.removeprefix(PREFIX).lower(), known) for name in strangers]
    if "CODELUPE_CONFIG" in os.environ and not config_file(os.environ).is_file():
        problems.append(f"CODELUPE_CONFIG={os.environ['CODELUPE_CONFIG']}: no such file")
    settings = None
    try:
        settings = Settings()
    except ValidationError as error:
        problems += [_describe(detail) for detail in error.errors(include_url=False)]
    except ValueError as error:  # broken TOML
        problems.append(f"{config_file(os.environ)}: {error}")
    if problems or settings is None:
        raise click.UsageError("the configuration is wrong:\n  " + "\n  ".join(problems))
    return settings


def _describe_unknown(place: str, name: str, known: Iterable[str]) -> str:
    """Return one line on a setting that is none, with the one that was meant."""
    if name in RENAMED:
        return f"{place}: there is no such setting any more: set {RENAMED[name]}"
    close = difflib.get_close_matches(place if place.startswith(PREFIX) else name, known, n=1)
    return f"{place}: there is no such setting{f'; is it {close[0]}?' if close else ''}"


def _describe(detail: Any) -> str:
    """Return one line on one wrong value, without the value where it is a secret."""
    section, name = str(detail["loc"][0]), str(detail["loc"][-1])
    place = ".".join(str(part) for part in detail["loc"])
    fields = {**Settings.model_fields, **(SECTIONS[section].model_fields if section in SECTIONS else {})}
    if detail["type"] == "extra_forbidden":
        return _describe_unknown(place, name, fields)
    message = detail["msg"].removeprefix("Value error, ")
    if name not in fields or name in SECTIONS or detail["type"] == "value_error":
        return f"{place}: {message}"  # our own messages name the value themselves
    given = "" if "SecretStr" in str(fields[name].annotation) else f" (given: {detail['input']!r})"
    return f"{place} [{PREFIX}{name.upper()}]: {message}{given}"


class _LazyGroup(click.Group):
    """A group that imports a package's commands when one of them is asked for."""

    # Where each command is, and its one line of help: `codelupe --help` must not import everything.
    PLACES = {  # noqa: RUF012
        "audit": ("schema.commands", "Prove that every row is accounted for."),
        "complete": ("daemon.commands", "Let a version continue a file, or fill a hole in it."),
        "daemon": ("daemon.commands", "The long-running daemon, and single ticks of it."),
        "db": ("daemon.backups", "The embedded database, the migrations, backup and restore."),
        "ingest": ("ingest.commands", "Fill the tables with source code."),
        "models": ("daemon.models", "Versions: list, show, compare, promote, roll back."),
        "monitor": ("monitoring.monitor", "Follow a service in the terminal, here or on another machine."),
        "plan": ("daemon.forecast", "Forecast the next run: rows, steps, memory, hours."),
        "runs": ("daemon.reports", "History of the training runs."),
        "search": ("schema.search_commands", "Search in the words of repositories and files."),
        "token": ("daemon.api.commands", "Tokens of the API: create, list, remove; and what was called with them."),
        "train": ("daemon.commands", "Manual control: train now, pause, resume, cancel."),
        "why": ("daemon.reports", "The last decisions, with their inputs."),
    }

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours, or of a file, explains itself: it is a usage error (2), no traceback."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if type(error).__module__.split(".")[0] in OUR_PACKAGES or (isinstance(error, OSError) and error.filename):
                raise click.UsageError(str(error)) from error
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.PLACES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.PLACES:
            return super().get_command(ctx, cmd_name)
        module = import_module(self.PLACES[cmd_name][0])
        command: click.Command = getattr(module, "set_value" if cmd_name == "set" else cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        own = {name: command.get_short_help_str() for name, command in self.commands.items()}
        lines = own | {name: words for name, (_, words) in self.PLACES.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(lines.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="codelupe")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Continuous training of code models: ingest, train, evaluate, publish, watch.

    Settings come from codelupe.toml and from CODELUPE_* variables; README.md lists them.
    """
    wants_help = any(word in ("-h", "--help") for word in sys.argv[1:])
    if not wants_help:
        ctx.obj = load_settings()
        failpoints.arm(os.environ, ctx.obj.profile)


class _ConfigGroup(_LazyGroup):
    """What needs a configuration alone is below; what reaches for the database is imported when it is asked for."""

    PLACES = {  # noqa: RUF012
        "history": ("daemon.adjust_commands", "Settings that were changed at run time: when, by whom, why."),
        "set": ("daemon.adjust_commands", "Change a setting of the running daemon, without a restart."),
        "unset": ("daemon.adjust_commands", "Let the configured value of a setting hold again."),
    }


@main.group(cls=_ConfigGroup)
def config() -> None:
    """The configuration: what holds and where it comes from, whether it can be used, what differs, what was changed."""


@config.command("show")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_obj
def show_config(settings: Settings, as_json: bool) -> None:
    """Show every setting with its value and where that comes from; secrets are masked."""
    from daemon.adjust_commands import read_changed

    changed = {f"daemon.{name}": value for name, value in read_changed(settings).items()}
    rows = [
        {"setting": name, "value": changed.get(name, value), "origin": _find_origin(settings, name, changed)}
        for name, value in _flatten(settings).items()
    ]
    if as_json:
        click.echo(json.dumps({"settings": rows}, indent=2))
    else:
        click.echo("\n".join(f"{row['setting']} = {json.dumps(row['value'])}  ({row['origin']})" for row in rows))


@config.command("check")
@click.pass_obj
def check_config(settings: Settings) -> None:
    """Say whether the configuration can be used; exit status 2, with everything that is wrong, if not."""
    from daemon.api.tokens import check_exposure
    from daemon.doubts import doubts_of
    from daemon.shapes import check_family

    check_exposure(settings.home, settings.monitoring)
    check_family(settings.daemon)
    for doubt in doubts_of(settings.daemon):
        click.echo(f"warning: {doubt}", err=True)
    click.echo(f"the configuration can be used: profile {settings.profile}, line {settings.daemon.line}")


@config.command("diff")
@click.argument("profile", required=False, type=click.Choice(list(PROFILES)))
@click.pass_obj
def diff_config(settings: Settings, profile: str | None) -> None:
    """Show what differs from the defaults, or from those of PROFILE, which come first."""
    from daemon.adjust_commands import read_changed

    given = PROFILES.get(profile, {}) if profile else {}
    others = {
        f"{section}.{name}": value
        for section, model in SECTIONS.items()
        for name, value in model.model_validate(given.get(section, {})).model_dump(mode="json").items()
    }
    changed = {f"daemon.{name}": value for name, value in read_changed(settings).items()}
    for name, configured in _flatten(settings).items():
        value = changed.get(name, configured)
        if name in others and value != others[name]:
            origin = " (run time)" if name in changed else ""
            click.echo(f"{name}: {json.dumps(others[name])} -> {json.dumps(value)}{origin}")


def _flatten(settings: Settings) -> dict[str, Any]:
    """Return every value by `section.name`, or `name` at the top, as JSON has it, secrets masked."""
    found: dict[str, Any] = {}
    for name, value in settings.model_dump(mode="json").items():
        found |= {f"{name}.{key}": one for key, one in value.items()} if name in SECTIONS else {name: value}
    return found


def _find_origin(settings: Settings, place: str, changed: Mapping[str, Any]) -> str:
    """Return which source has set the value of `section.name`: the strongest that names it."""
    if place in changed:
        return "run time"
    file = config_file(os.environ)
    sources: dict[str, Mapping[str, Any]] = {
        "environment": _Environment(Settings)(),
        str(file): TomlConfigSettingsSource(Settings, toml_file=file)(),
        f"profile {settings.profile}": PROFILES[settings.profile],
    }
    section, _, name = place.rpartition(".")
    named = [origin for origin, values in sources.items() if name in (values.get(section, {}) if section else values)]
    return named[0] if named else "default"


@main.command()
@click.option("--once", is_flag=True, help="Stop after the first finished round.")
@click.argument("sources", nargs=-1)
@click.pass_obj
def up(settings: Settings, once: bool, sources: tuple[str, ...]) -> None:
    """Run everything on this machine: database, migrations, ingest workers, daemon.

    SOURCES are folders, git repositories or git URLs to ingest; without any, the `tiny` profile reads the standard
    library of the running Python.

    With --once, exits 0 when a version was promoted or there was nothing new, 1 when the round failed, 3 when it was
    held or rejected. 2 is a usage or configuration error, 4 a home that another `up` uses.
    """
    from daemon.commands import run_service
    from daemon.service import Company
    from ingest.commands import queue_source
    from ingest.serving import ingest_beside
    from ingest.sources import normalise_source, standard_library

    found = [normalise_source(source) for source in sources]
    if not found and settings.profile == "tiny":
        found = [standard_library()]

    def queue(conn: "Connection") -> None:
        for source in found:
            queue_source(conn, source)

    company = Company(migrates=True, queue=queue, beside=partial(ingest_beside, settings))
    with _lock(settings.home):
        code = run_service(settings, once=once, log_name="codelupe.log", company=company)
    sys.exit(code)


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """Hold the home for this process alone; exit with 4, naming the process, when another has it."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = (home / "up.lock").open("a+")
    except OSError as error:
        raise click.UsageError(f"{home}: {error.strerror}: set CODELUPE_HOME to a folder you may write to") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            click.echo(f"{home} is in use by `codelupe up` with pid {file.read().strip()}: stop it first", err=True)
            sys.exit(4)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


if __name__ == "__main__":
    main()
