"""Tokens: what is in their file, who is let in by it, and a daemon that others could reach without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.api.tokens import TokenError, TokenFile, add_token, check_exposure, parse_tokens, read_tokens
from monitoring.config import MonitoringSettings
from tests.waiting import DEADLINE_S

DIGEST = "0" * 64


@pytest.fixture
def codelupe(tmp_path):
    """Run the front door on a home of its own; return its exit status, output and errors."""

    def run(*words, **variables):
        environment = {"CODELUPE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **variables}
        command = [sys.executable, "-m", "codelupe", *words]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root, timeout=DEADLINE_S)
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_token_is_shown_once_and_only_its_hash_is_kept(codelupe, tmp_path):
    status, secret, _ = codelupe("token", "create", "laptop", "--scope", "train", "--scope", "read")
    assert status == 0
    assert secret.strip() not in (tmp_path / "api_tokens").read_text()
    token = TokenFile(tmp_path / "api_tokens").find(secret.strip())
    assert (token.name, token.scopes) == ("laptop", {"train", "read"})
    listed = json.loads(codelupe("token", "list", "--json")[1])
    assert listed["tokens"] == [{"name": "laptop", "scopes": ["read", "train"]}]


def test_the_file_is_where_the_setting_says(codelupe, tmp_path):
    file = tmp_path / "elsewhere" / "tokens"
    codelupe("token", "create", "laptop", "--scope", "read", CODELUPE_API_TOKENS_FILE=str(file))
    assert [token.name for token in read_tokens(file)] == ["laptop"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "Laptop!", "--scope", "read"), "'Laptop!' is no name for a token"),
        (("create", "laptop", "--scope", "dance"), "'dance' is not one of"),
        (("create", "laptop"), "Missing option '--scope'"),
        (("remove", "laptop"), "there is no token 'laptop'; there are: none"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(words, says, codelupe):
    status, _, errors = codelupe("token", *words)
    assert status == 2
    assert says in errors


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("laptop train", "file:1: write NAME SCOPE,SCOPE SHA256"),
        (f"# a comment\n\nlaptop dance {DIGEST}", "file:3: there is no scope 'dance'"),
        (f"a read {DIGEST}\na train {DIGEST}", "file:2: there are two tokens 'a'"),
        ("laptop train codelupe_this-is-the-token-itself", "file:1: write NAME"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_shows_no_token(text, says):
    with pytest.raises(TokenError, match=says) as refused:
        parse_tokens(text, "file")
    assert "itself" not in str(refused.value)


def test_two_tokens_of_one_name_are_refused(tmp_path):
    add_token(tmp_path / "tokens", "laptop", ["read"])
    with pytest.raises(TokenError, match="there is a token 'laptop' already"):
        add_token(tmp_path / "tokens", "laptop", ["train"])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.9"])
def test_on_this_machine_alone_no_token_is_needed(host, tmp_path):
    check_exposure(tmp_path, MonitoringSettings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_beyond_this_machine_a_token_is_needed(host, tmp_path):
    with pytest.raises(TokenError, match=f"CODELUPE_HOST={host} .*codelupe token create"):
        check_exposure(tmp_path, MonitoringSettings(host=host))
    add_token(tmp_path / "api_tokens", "laptop", ["read"])
    check_exposure(tmp_path, MonitoringSettings(host=host))


@pytest.mark.parametrize("words", [("up",), ("daemon", "run")])
def test_a_daemon_that_others_could_reach_does_not_start_without_a_token(words, codelupe, tmp_path):
    status, _, errors = codelupe(*words, CODELUPE_HOST="0.0.0.0")
    assert status == 2
    assert "holds no token: make one with `codelupe token create" in errors
    assert not (tmp_path / "database").exists()
