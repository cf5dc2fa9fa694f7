"""The compose file promises what an operator relies on, service by service."""

import os
import re

import pytest
import yaml

import codelupe
from tests.deploy.stack_file import ONE_SHOT, ROOT, SERVICES, STACK

every_service = pytest.mark.parametrize("name", SERVICES)


@every_service
def test_a_service_is_built_here_or_pinned_by_an_exact_tag(name):
    service = SERVICES[name]

    assert "build" in service or re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", service["image"])


@every_service
def test_a_service_comes_back_by_itself(name):
    assert SERVICES[name]["restart"] == ("on-failure:5" if name in ONE_SHOT else "unless-stopped")


@every_service
def test_a_service_says_how_it_is(name):
    check = SERVICES[name].get("healthcheck", {})

    # codelupe's own have theirs in the image.
    assert check.get("disable", False) == (name in ONE_SHOT)
    assert check or "build" in SERVICES[name]


@every_service
def test_a_service_is_confined(name):
    service = SERVICES[name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert service["mem_limit"]


@every_service
def test_the_logs_of_a_service_do_not_fill_the_disk(name):
    assert SERVICES[name]["logging"]["options"] == {"max-size": "10m", "max-file": "5"}


@every_service
def test_a_service_has_time_to_stop(name):
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= 30


@every_service
def test_a_port_is_open_to_this_machine_alone_unless_asked(name):
    ports = SERVICES[name].get("ports", [])

    assert [port for port in ports if not port.startswith("${CODELUPE_BIND:-127.0.0.1}:")] == []


@every_service
def test_no_password_is_in_an_environment_or_a_command_line(name):
    service = SERVICES[name]
    told = [str(word) for word in service.get("command", [])]
    for variable, value in service.get("environment", {}).items():
        if re.search("PASSWORD|TOKEN|SECRET|DATABASE_URL|KEY", variable):
            assert variable.endswith("_FILE")
            assert value.removeprefix("/run/secrets/") in service["secrets"]
        told.append(str(value))

    assert not re.search("://[^/]*:[^/]*@", " ".join(told))


@every_service
def test_what_a_service_mounts_of_the_checkout_is_there(name):
    mounts = [volume.split(":")[0] for volume in SERVICES[name].get("volumes", [])]

    assert [mount for mount in mounts if mount.startswith(".") and not (ROOT / mount).exists()] == []


@every_service
def test_each_of_our_variables_is_a_setting(name):
    ours = [word for word in SERVICES[name].get("environment", {}) if word.startswith("CODELUPE_")]

    assert [word for word in ours if not {word, word.removesuffix("_FILE")} & set(codelupe.variables())] == []


def test_every_service_of_ours_is_told_the_same_settings_whatever_they_are():
    ours = {name for name, service in SERVICES.items() if service["image"].startswith("codelupe-")}
    told = {name: [file.rpartition("/")[2] for file in SERVICES[name].get("env_file", [])] for name in ours}

    assert told == {key: ["settings.env"] for key in ours}


def test_courtesy_needs_but_the_daemon_among_the_machines_processes():
    override = yaml.safe_load((ROOT / "deploy/compose/courtesy.yml").read_text())

    assert override["services"]["daemon"]["pid"] == "host"
    assert set(override["services"]) <= set(SERVICES)
    assert set(override["services"]["daemon"]["environment"]) <= set(codelupe.variables())


@pytest.mark.parametrize(
    ("volume", "place"),
    [
        ("repos", "/app/repos"),
        ("models", "/app/models"),
        ("checkpoints", "/app/runs"),
        ("cache", "/app/cache"),
        ("logs", "/app/logs"),
        ("database", "/var/lib/postgresql"),
    ],
)
def test_a_volume_holds_what_its_name_says(volume, place):
    mounts = {mount for service in SERVICES.values() for mount in service.get("volumes", [])}

    assert volume in STACK["volumes"]
    assert f"{volume}:{place}" in mounts


def test_both_daemons_are_the_same_but_for_the_gpu_and_the_model():
    gpu, cpu = SERVICES["daemon"], SERVICES["daemon-cpu"]

    assert {name for name in gpu.keys() | cpu.keys() if gpu.get(name) != cpu.get(name)} == {
        "profiles",
        "environment",
        "networks",
        "deploy",
        "mem_limit",
    }
    assert cpu["environment"] == {**gpu["environment"], "CODELUPE_PROFILE": "tiny"}


def test_the_training_child_may_write_its_checkpoint_before_the_engine_kills_it():
    longest = codelupe.DaemonSettings().stop_grace_s

    assert int(SERVICES["daemon"]["stop_grace_period"].removesuffix("s")) > longest + 10


def test_the_database_is_reached_from_inside_alone():
    assert SERVICES["postgres"]["networks"] == ["inside"]
    assert STACK["networks"]["inside"] == {"internal": True}
    assert "ports" not in SERVICES["postgres"]


def test_without_passwords_the_stack_says_what_to_do():
    asked = {secret["file"].partition("}")[0] for secret in STACK["secrets"].values()}

    assert asked == {'${CODELUPE_SECRETS:?there are no passwords yet, run "make secrets" first'}


def test_scripts_that_containers_start_may_be_executed():
    scripts = [ROOT / "deploy/compose" / name for name in ("backup.sh", "healthcheck.py")]

    assert [script.name for script in scripts if not os.access(script, os.X_OK)] == []
