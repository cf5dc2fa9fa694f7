"""Docker's own tool reads the compose file, without an engine: variables, anchors and profiles make whole services."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.deploy.stack_file import ROOT, SERVICES

pytestmark = pytest.mark.system

COMPOSE_FILE = ("--file", str(ROOT / "docker-compose.yml"))


@pytest.fixture
def config(tmp_path):
    """Call it with settings for what `docker-compose config` makes of the file, in a folder without .env."""
    assert shutil.which("docker-compose"), (
        "docker-compose is missing: apt-get install docker-compose (.ci/apt-packages)"
    )

    def run(*words: str, override: str | None = None, **settings: object) -> "subprocess.CompletedProcess[str]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "CODELUPE_"))}
        further = () if override is None else ("--file", str(ROOT / override))
        command = ["docker-compose", *COMPOSE_FILE, *further, "--project-directory", str(tmp_path), "config", *words]
        environment = {**kept, **{name: str(value) for name, value in settings.items()}}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)

    return run


@pytest.fixture
def secrets(tmp_path):
    subprocess.run([sys.executable, str(ROOT / "deploy/compose/make_secrets.py")], cwd=tmp_path, check=True)
    (tmp_path / ".env").unlink()
    return tmp_path / "secrets"


@pytest.mark.parametrize("profiles", ["gpu", "cpu", "cpu,crawl", "gpu,serve"])
def test_every_profile_makes_a_valid_stack(profiles, config, secrets):
    done = config("--services", CODELUPE_SECRETS=secrets, COMPOSE_PROFILES=profiles)
    chosen = set(profiles.split(","))
    wanted = {name for name, service in SERVICES.items() if chosen & set(service.get("profiles", chosen))}

    assert done.returncode == 0, done.stderr
    assert wanted <= set(done.stdout.split())  # the first compose names those of other profiles too


def test_without_passwords_it_says_what_to_do_and_starts_nothing(config):
    done = config("--quiet", COMPOSE_PROFILES="gpu")

    assert done.returncode != 0
    assert 'there are no passwords yet, run "make secrets" first' in done.stderr


def test_a_line_in_the_file_of_settings_reaches_every_service_of_ours(config, secrets):
    with (secrets / "settings.env").open("a") as file:
        file.write("CODELUPE_TRAIN_WINDOWS=mon-fri 22:00-06:00, sat-sun\nCODELUPE_PROFILE=small\n")

    done = config(CODELUPE_SECRETS=secrets, COMPOSE_PROFILES="gpu,cpu", CODELUPE_PROFILE="gpu-80gb")

    services = yaml.safe_load(done.stdout)["services"]
    told = [service["environment"] for service in services.values() if service["image"].startswith("codelupe-")]
    assert {one["CODELUPE_TRAIN_WINDOWS"] for one in told} == {"mon-fri 22:00-06:00, sat-sun"}
    assert {one["CODELUPE_PROFILE"] for one in told} == {"gpu-80gb", "tiny"}  # what .env and the file decide


def test_courtesy_is_an_override_file(config, secrets):
    done = config(CODELUPE_SECRETS=secrets, COMPOSE_PROFILES="gpu", override="deploy/compose/courtesy.yml")

    daemon = yaml.safe_load(done.stdout)["services"]["daemon"]
    assert (daemon["pid"], daemon["environment"]["CODELUPE_COURTESY_S"]) == ("host", "30")


def test_no_password_is_in_what_it_makes_of_the_file(config, secrets):
    done = config(CODELUPE_SECRETS=secrets, COMPOSE_PROFILES="gpu,serve")
    passwords = [file.read_text().strip() for file in secrets.iterdir()]

    assert [password for password in passwords if password and password in done.stdout] == []
