import errno
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schema import failpoints
from schema.failpoints import ENVIRONMENT_VARIABLE, NAMES, FailpointHit, FailpointsRefused, arm, hit

ROOT = Path(__file__).resolve().parents[2]
NAME = "publish.after_rename"


@pytest.fixture(autouse=True)
def _disarmed():
    yield
    arm({}, "tiny")


def arm_with(text, profile="tiny"):
    arm({ENVIRONMENT_VARIABLE: text}, profile)


def test_nothing_happens_unarmed():
    arm({}, "gpu-32gb")
    assert [hit(name) for name in NAMES] == [None] * len(NAMES)


def test_an_armed_failpoint_raises_once_and_others_pass():
    arm_with(f"{NAME}=raise")
    hit("run.after_claim")
    with pytest.raises(FailpointHit, match=NAME):
        hit(NAME)
    hit(NAME)


def test_a_full_disk_is_simulated_on_the_third_hit():
    arm_with(f" {NAME}=enospc@3, run.after_claim=raise ")
    hit(NAME)
    hit(NAME)
    with pytest.raises(OSError, match=NAME) as caught:
        hit(NAME)
    assert caught.value.errno == errno.ENOSPC


def test_a_kill_leaves_no_time_for_anything():
    code = (
        "import atexit, os; from schema.failpoints import arm, hit\n"
        "atexit.register(print, 'cleaned up', flush=True); arm(os.environ, 'tiny')\n"
        f"hit('{NAME}'); print('still there')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={ENVIRONMENT_VARIABLE: f"{NAME}=kill"}, capture_output=True
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize(
    "text",
    ["nonsense", f"{NAME}=explode", "no.such_place=kill", f"{NAME}=kill@0", f"{NAME}=kill@", f"{NAME}=kill,nonsense"],
)
def test_what_cannot_be_armed_is_refused_with_the_names_that_can(text):
    with pytest.raises(FailpointsRefused, match=r"publish\.after_promote"):
        arm_with(text)


def test_only_the_tiny_profile_can_be_armed():
    with pytest.raises(FailpointsRefused, match="not for 'gpu-32gb': unset it"):
        arm_with(f"{NAME}=kill", profile="gpu-32gb")


def test_every_place_in_the_code_is_in_the_list():
    places = set()
    for package in ("schema", "ingest", "daemon"):
        for path in (ROOT / package).rglob("*.py"):
            places |= set(re.findall(r"""\bhit\(["']([^"']+)["']\)""", path.read_text()))
    assert places <= NAMES, f"not in {failpoints.__name__}.NAMES: {places - NAMES}"
