"""`make secrets`: random passwords, written once, into a folder for their owner alone."""

import stat
import subprocess
import sys
from pathlib import Path

import psycopg.conninfo
import pytest

import codelupe
from daemon.api.tokens import TokenFile
from daemon.config import DaemonSettings
from tests.deploy.stack_file import ROOT, STACK

SCRIPT = ROOT / "deploy/compose/make_secrets.py"
PASSWORDS = ("database_password", "grafana_password")


def make_secrets(folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, str(SCRIPT)], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def checkout(tmp_path):
    make_secrets(tmp_path)
    return tmp_path


def test_every_secret_of_the_stack_is_written(checkout):
    wanted = {Path(secret["file"]).name for secret in STACK["secrets"].values()}

    assert {file.name for file in (checkout / "secrets").iterdir()} == wanted | {"api_token", "settings.env"}


def test_the_folder_is_for_its_owner_alone(checkout):
    assert stat.S_IMODE((checkout / "secrets").stat().st_mode) == 0o700


def test_a_container_of_another_user_can_read_them_and_nobody_can_write(checkout):
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (checkout / "secrets").iterdir()}

    assert modes.pop("settings.env") == 0o644  # no secret, and for its owner to change
    assert set(modes.values()) == {0o444}


def test_the_file_of_settings_shows_examples_that_are_settings_and_sets_nothing(checkout):
    lines = (checkout / "secrets/settings.env").read_text().splitlines()
    examples = [line.removeprefix("# ").partition("=") for line in lines if line.startswith("# CODELUPE_")]
    section = {name.removeprefix("CODELUPE_").lower(): text for name, _, text in examples}
    daemon = {name: text for name, text in section.items() if name in DaemonSettings.model_fields}

    assert all(line.startswith("#") for line in lines)
    assert {name for name, _, _ in examples} <= set(codelupe.variables())
    lists = {"train_windows", "quiet_hours", "watch"}
    DaemonSettings(**{name: text.split(", ") if name in lists else text for name, text in daemon.items()})


def test_passwords_are_random_and_long(checkout, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    make_secrets(other)

    found = [(folder / "secrets" / name).read_text().strip() for folder in (checkout, other) for name in PASSWORDS]

    assert len(set(found)) == len(found)
    assert {len(password) for password in found} == {48}


def test_the_url_carries_the_password_of_the_database(checkout):
    url = psycopg.conninfo.conninfo_to_dict((checkout / "secrets/database_url").read_text().strip())

    assert url["password"] == (checkout / "secrets/database_password").read_text().strip()
    assert (url["host"], url["user"], url["dbname"]) == ("postgres", "codelupe", "codelupe")


def test_the_token_of_the_api_is_the_one_whose_hash_the_daemon_reads(checkout):
    token = TokenFile(checkout / "secrets/api_tokens").find((checkout / "secrets/api_token").read_text().strip())

    assert (token.name, sorted(token.scopes)) == ("operator", ["config", "models", "read", "sources", "train"])


def test_what_is_there_is_kept(checkout):
    (checkout / "secrets/grafana_password").chmod(0o644)
    (checkout / "secrets/grafana_password").write_text("mine\n")

    assert make_secrets(checkout) == []
    assert (checkout / "secrets/grafana_password").read_text() == "mine\n"


def test_git_and_the_image_leave_them_out():
    ignored = subprocess.run(
        ["git", "check-ignore", "secrets/database_password", ".env"], cwd=ROOT, capture_output=True, text=True
    )
    taken = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    assert ignored.stdout.split() == ["secrets/database_password", ".env"]
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    assert not {"!secrets", "!.env", "!.git", "!deploy"} & set(taken)
