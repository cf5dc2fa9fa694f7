import errno
import gc
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.supervise import _environment as trainer_environment
from ingest.box import make_environment
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


def test_a_place_that_is_passed_calls_nothing():
    """Not even the environment is asked: what is not armed costs a look into an empty dict."""
    called = []

    def note(frame, event, function):
        if event in ("call", "c_call"):
            called.append(frame.f_code.co_name if event == "call" else function.__name__)

    arm({}, "tiny")
    gc.collect()  # what it would find meanwhile may have something to call
    sys.setprofile(note)
    hit(NAME)
    sys.setprofile(None)
    assert called == ["hit", "setprofile"]


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


def test_the_children_are_handed_what_the_parent_was_armed_with_or_nothing(monkeypatch, tmp_path):
    """The trainer arms it again; the reader of hostile sources gets none of our variables."""
    monkeypatch.setenv("CODELUPE_DATABASE_URL", "postgresql://user:hidden@host/db")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, f"{NAME}=kill")
    ours = [name for name in trainer_environment() if name.startswith("CODELUPE_")]
    assert ours == [ENVIRONMENT_VARIABLE]
    assert [name for name in make_environment("/srv/tool", tmp_path) if name.startswith("CODELUPE_")] == []
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    assert not [name for name in trainer_environment() if name.startswith("CODELUPE_")]
