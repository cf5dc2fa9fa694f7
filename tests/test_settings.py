"""The configuration: where values come from, and that everything wrong is said at once."""

import click
import pytest

import codelupe


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in list(codelupe.os.environ):
        if name.startswith("CODELUPE_"):
            monkeypatch.delenv(name)
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
