"""Debian's Prometheus in a process of its own: it scrapes what a test names, each second."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.waiting import DEADLINE_S

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"


def find_port():
    """Return the number of a port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Prometheus:
    """A running Prometheus that scrapes `targets` (address by job) each second and evaluates `rules`."""

    def __init__(self, folder, targets, *, rules=ALERTS, alertmanager=None):
        assert shutil.which("prometheus"), "prometheus is missing: apt-get install prometheus (.ci/apt-packages)"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()
            ],
        }
        if alertmanager is not None:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{find_port()}"
        self.url = f"http://{address}"
        self.log = folder / "prometheus.log"
        arguments = ["--config.file", str(folder / "prometheus.yml"), "--storage.tsdb.path", str(folder / "data")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", *arguments, "--web.listen-address", address], stdout=log, stderr=log
            )

    def ask(self, path, **query):
        """Return the data of an answer of the API."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as response:
            return json.load(response)["data"]

    def firing(self):
        """Return the names of the alerts that fire now."""
        return {one["labels"]["alertname"] for one in self.ask("alerts")["alerts"] if one["state"] == "firing"}

    def wait_until(self, holds):
        """Ask again until it holds; fail with the server's log if the server dies or the time is over."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                if holds():
                    return
            except OSError:
                pass
            try:
                self.process.wait(timeout=0.05)
                break
            except subprocess.TimeoutExpired:
                continue
        pytest.fail(self.log.read_text())

    def stop(self):
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=DEADLINE_S)
