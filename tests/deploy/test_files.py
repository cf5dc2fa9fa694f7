"""The files of the stack are what their own tools and formats ask for."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.deploy.stack_file import ROOT

BIN = Path(sys.executable).parent
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint_finds_nothing_in_the_dockerfile():
    done = subprocess.run([BIN / "hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


def test_hadolint_notices_a_base_image_without_a_tag(tmp_path):
    (tmp_path / "Dockerfile").write_text(re.sub("python:[^ ]+", "python", DOCKERFILE))

    done = subprocess.run([BIN / "hadolint", str(tmp_path / "Dockerfile")], capture_output=True, text=True)

    assert "DL3006" in done.stdout


def check_schema(file: Path) -> "subprocess.CompletedProcess[str]":
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["docker-compose.yml", "deploy/compose/courtesy.yml"])
def test_a_compose_file_follows_the_schema(name):
    done = check_schema(ROOT / name)

    assert done.returncode == 0, done.stdout


def test_the_schema_notices_a_misspelt_key(tmp_path):
    text = (ROOT / "docker-compose.yml").read_text().replace("stop_grace_period", "stop_grace_periode")
    (tmp_path / "docker-compose.yml").write_text(text)

    assert check_schema(tmp_path / "docker-compose.yml").returncode == 1


def test_the_image_runs_without_root_and_without_a_shell_around_its_process():
    starts = re.findall(r"^(?:ENTRYPOINT|CMD|HEALTHCHECK .*CMD) (.*)$", DOCKERFILE, re.MULTILINE)

    assert "USER 10001:10001" in DOCKERFILE
    assert len(starts) == 5
    assert [start for start in starts if not start.startswith("[")] == []


def test_the_image_takes_no_secret():
    assert not re.search("--mount=type=secret|ARG .*(PASSWORD|TOKEN|KEY)", DOCKERFILE)


def test_the_version_of_the_image_is_that_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert f"ARG VERSION={version}" in DOCKERFILE
    assert f"codelupe-trainer:${{CODELUPE_VERSION:-{version}}}" in (ROOT / "docker-compose.yml").read_text()


def test_every_package_of_ours_is_in_the_image():
    assert set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE)) == set(PACKAGES)


def test_every_file_that_a_package_reads_is_installed_with_it():
    # A checkout is installed in place and finds everything; the image installs the packages alone.
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    listed = {path for name, globs in patterns.items() for one in globs for path in find_data(name, one)}
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()

    # Alembic's template is for making a new revision, which needs a checkout.
    assert {path for path in tracked if not path.endswith((".py", ".mako"))} - listed == set()


def find_data(package: str, pattern: str) -> "set[str]":
    folders = [ROOT / name for name in PACKAGES] if package == "*" else [ROOT / package.replace(".", "/")]
    found = {path for folder in folders for path in (folder.rglob(pattern) if package == "*" else folder.glob(pattern))}
    return {str(path.relative_to(ROOT)) for path in found}


@pytest.mark.parametrize(
    "line", [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
)
def test_what_goes_to_the_build_is_there(line):
    assert (ROOT / line).exists()


def test_prometheus_asks_every_process_every_15_seconds_and_tells_alertmanager():
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())

    assert config["global"] == {"scrape_interval": "15s", "evaluation_interval": "15s"}
    assert {"codelupe-daemon", "codelupe-ingest", "codelupe-crawler"} <= {
        job["job_name"] for job in config["scrape_configs"]
    }
    assert config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["alertmanager:9093"]


def test_grafana_finds_its_data_source_and_its_dashboards():
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/codelupe.yml").read_text())["providers"]

    assert (source["uid"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert f":{provider['options']['path']}:ro" in (ROOT / "docker-compose.yml").read_text()
