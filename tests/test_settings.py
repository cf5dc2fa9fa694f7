"""The configuration: where values come from, and that everything wrong is said at once."""

import json

import click
import pytest
from click.testing import CliRunner

import codelupe


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in list(codelupe.os.environ):
        if name.startswith("CODELUPE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CODELUPE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_the_profile_sets_defaults_the_file_goes_over_it_and_the_environment_over_both(monkeypatch, tmp_path):
    (tmp_path / "codelupe.toml").write_text('profile = "tiny"\n[daemon]\nthreshold_rows = 7\nmax_rows = 9\n')
    monkeypatch.setenv("CODELUPE_MAX_ROWS", "11")

    daemon = codelupe.load_settings().daemon

    assert (daemon.line, daemon.threshold_rows, daemon.max_rows) == ("tiny", 7, 11)


def test_a_secret_is_read_from_the_file_that_the_variable_names(monkeypatch, tmp_path):
    (tmp_path / "url").write_text("postgresql://user:hidden@host/db\n")
    monkeypatch.setenv("CODELUPE_DATABASE_URL_FILE", str(tmp_path / "url"))

    url = codelupe.load_settings().database.database_url

    assert url is not None
    assert url.get_secret_value() == "postgresql://user:hidden@host/db"


def test_a_list_is_words_between_commas(monkeypatch):
    monkeypatch.setenv("CODELUPE_LANGUAGES", "python, rust")

    assert codelupe.load_settings().ingest.languages == ("python", "rust")


@pytest.mark.parametrize("profile", codelupe.PROFILES)
def test_every_profile_loads(monkeypatch, profile):
    monkeypatch.setenv("CODELUPE_PROFILE", profile)

    assert codelupe.load_settings().profile == profile


def test_no_two_sections_share_a_variable():
    names = [name for model in codelupe.SECTIONS.values() for name in model.model_fields]

    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("variables", "file", "said"),
    [
        ({"CODELUPE_TRESHOLD_ROWS": "5"}, "", "is it CODELUPE_THRESHOLD_ROWS?"),
        ({"CODELUPE_MAX_ROWS": "many"}, "", "daemon.max_rows [CODELUPE_MAX_ROWS]"),
        ({"CODELUPE_PROFILE": "gpu"}, "", "'gpu' is not a profile: choose one of tiny"),
        ({"CODELUPE_CONFIG": "/nowhere.toml"}, "", "CODELUPE_CONFIG=/nowhere.toml: no such file"),
        ({"CODELUPE_DATABASE_URL_FILE": "/nowhere"}, "", "CODELUPE_DATABASE_URL_FILE=/nowhere"),
        ({}, "[daemon]\nthreshold_row = 3", "daemon.threshold_row: there is no such setting; is it threshold_rows?"),
        (
            {},
            "[daemon]\nrecompute = false",
            "daemon.recompute: there is no such setting any more",
        ),
        ({"CODELUPE_RECOMPUTE": "true"}, "", "no such setting any more: set checkpointed_layers (all, 0, a number"),
        ({"CODELUPE_CHECKPOINTED_LAYERS": "-1"}, "", "daemon.checkpointed_layers"),
        ({}, "[demon]\nline = 3", "demon: there is no such setting; is it daemon?"),
        ({}, "[daemon]\nmin_chars = 900\nmax_chars = 600", "min_chars (900) is above max_chars (600)"),
        ({}, "[daemon\n", "codelupe.toml"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_the_fix(monkeypatch, tmp_path, variables, file, said):
    (tmp_path / "codelupe.toml").write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(click.UsageError) as refused:
        codelupe.load_settings()

    assert said in refused.value.message


def test_all_wrong_values_are_said_at_once_and_no_secret_with_them(monkeypatch):
    monkeypatch.setenv("CODELUPE_DATABASE_URL", "postgresql://user:hidden@host/db")
    monkeypatch.setenv("CODELUPE_POOL_SIZE", "9")
    monkeypatch.setenv("CODELUPE_MAX_ROWS", "many")
    monkeypatch.setenv("CODELUPE_UNKNOWN", "x")

    with pytest.raises(click.UsageError) as refused:
        codelupe.load_settings()

    message = refused.value.message
    assert all(name in message for name in ("CODELUPE_POOL_SIZE", "CODELUPE_MAX_ROWS", "CODELUPE_UNKNOWN"))
    assert "hidden" not in message


def test_a_secret_in_the_place_of_a_section_is_not_repeated(tmp_path):
    (tmp_path / "codelupe.toml").write_text('database = "postgresql://user:hidden@host/db"\n')

    with pytest.raises(click.UsageError) as refused:
        codelupe.load_settings()

    assert "database" in refused.value.message
    assert "hidden" not in refused.value.message


@pytest.mark.parametrize("url", ["mysql://user:hidden@host/db", "postgresql://user:hidden@host:port/db", "hidden"])
def test_a_url_that_is_none_is_refused_without_repeating_it(monkeypatch, url):
    monkeypatch.setenv("CODELUPE_DATABASE_URL", url)

    with pytest.raises(click.UsageError) as refused:
        codelupe.load_settings()

    assert "postgresql://user:password@host:port/database" in refused.value.message
    assert "hidden" not in refused.value.message


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    monkeypatch.setenv("CODELUPE_DATABASE_URL", "")
    monkeypatch.setenv("CODELUPE_POSTGRES_BIN", "")

    database = codelupe.load_settings().database

    assert (database.database_url, database.postgres_bin) == (None, None)


@pytest.fixture
def ask(monkeypatch):
    """Run a command of the front door; return its exit status and what it printed."""

    def run(*words):
        monkeypatch.setattr(codelupe.sys, "argv", ["codelupe", *words])
        done = CliRunner().invoke(codelupe.main, words)
        return done.exit_code, done.output

    return run


def test_every_value_is_shown_with_where_it_comes_from_and_no_secret(ask, monkeypatch, tmp_path):
    (tmp_path / "codelupe.toml").write_text("[daemon]\nmax_rows = 900\n")
    monkeypatch.setenv("CODELUPE_THRESHOLD_ROWS", "70")
    monkeypatch.setenv("CODELUPE_DATABASE_URL", "postgresql://user:hunter2@127.0.0.1:1/db")

    status, text = ask("config", "show", "--json")

    document = text[text.index("{") :]  # before it: a word about the database, which does not answer
    shown = {row["setting"]: (row["value"], row["origin"]) for row in json.loads(document)["settings"]}
    assert shown["daemon.threshold_rows"] == (70, "environment")
    assert shown["daemon.max_rows"] == (900, "codelupe.toml")
    assert shown["daemon.line"] == ("tiny", "profile tiny")
    assert shown["monitoring.daemon_port"] == (8090, "default")
    assert (status, "hunter2" in text) == (0, False)


def test_what_differs_is_shown_against_the_defaults_and_against_a_profile(ask, monkeypatch):
    monkeypatch.setenv("CODELUPE_PROFILE", "gpu-32gb")
    monkeypatch.setenv("CODELUPE_THRESHOLD_ROWS", "70")

    assert "daemon.threshold_rows: 1000 -> 70" in ask("config", "diff")[1].splitlines()
    assert "daemon.threshold_rows: 100 -> 70" in ask("config", "diff", "tiny")[1].splitlines()
    assert ask("config", "diff", "gpu-32gb") == (0, "daemon.threshold_rows: 1000 -> 70\n")


@pytest.mark.parametrize(
    ("variables", "status", "said"),
    [
        ({}, 0, "the configuration can be used: profile tiny, line tiny"),
        ({"CODELUPE_MAX_ROWS": "many"}, 2, "daemon.max_rows [CODELUPE_MAX_ROWS]"),
        ({"CODELUPE_HOST": "0.0.0.0"}, 2, "holds no token"),
        ({"CODELUPE_RSLORA": "true"}, 0, "warning: rslora multiplies the adapter by alpha / √rank = 16"),
        ({"CODELUPE_ADAPTER_INIT": "pissa", "CODELUPE_RSLORA": "true"}, 2, "cannot be combined with rslora"),
    ],
)
def test_a_check_says_whether_the_configuration_can_be_used(ask, monkeypatch, tmp_path, variables, status, said):
    monkeypatch.setenv("CODELUPE_HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    code, text = ask("config", "check")

    assert code == status
    assert said in text


def test_a_base_that_no_adapter_can_be_trained_on_is_refused_with_its_kind_and_what_to_set(ask, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_head": 12, "n_embd": 768}')
    monkeypatch.setenv("CODELUPE_BASE_MODEL", str(tmp_path))

    code, text = ask("config", "check")

    assert code == 2
    said = " ".join(text.split())
    for words in (
        f"CODELUPE_BASE_MODEL={tmp_path}",
        "'gpt2'",
        "a new CODELUPE_LINE",
        f"train base FOLDER --from {tmp_path}",
    ):
        assert words in said
