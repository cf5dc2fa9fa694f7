"""Secrets: one made-up positive and one near miss for each rule."""

import pytest

from sourcecode.secrets import RULES, find_secrets

# Written in halves, so that no scanner takes this file for a leak.
_B62 = "Zk7Qp2Rx9Tv4Wm6Yb1Nc8Jd3Hf5Lg0Sa7De2Fi9Ko4Pu6Xq1Vz8Br3Ct5My0Wn7Eh2Gj9Lk4Qs6Ud1Af8Ip3To5Rv0Yx7Bz2Cn"
_CASES = {
    "private-key": ("-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE" + _B62[:60], "-----BEGIN RSA PRIVATE KEY-----\n..."),
    "aws-access-key": ("AKIA" + "Q4WZ7P2KX5RT6VNB", "AKIAIOSFODNN7EXAMPLE"),
    "github-token": ("ghp_" + _B62[:36], "ghp_" + _B62[:20]),
    "github-fine-grained-token": ("github_pat_" + _B62[:22] + "_" + _B62[:59], "github_pat_" + _B62[:22]),
    "gitlab-token": ("glpat-" + _B62[:20], "glpat-" + _B62[:9]),
    "slack-token": ("xoxb-" + "274819365027-" + _B62[:24], "xoxb-token"),
    "slack-webhook": (
        "https://hooks.slack.com/services/" + "T7K2P9QX4/B5M8R3WZ6/" + _B62[:24],
        "hooks.slack.com/services/T/B/x",
    ),
    "stripe-key": ("sk_live_" + _B62[:24], "sk_test_" + _B62[:24]),
    "google-api-key": ("AIza" + _B62[:35], "AIza" + _B62[:20]),
    "google-oauth-secret": ("GOCSPX-" + _B62[:28], "GOCSPX-" + _B62[:12]),
    "openai-key": ("sk-" + _B62[:20] + "T3BlbkFJ" + _B62[20:40], "sk-" + _B62[:20]),
    "anthropic-key": ("sk-ant-api03-" + _B62[:90], "sk-ant-api03-" + _B62[:20]),
    "huggingface-token": ("hf_" + "KqXzWvTrPnLjHfDbYsUmGeCaOiRkQwVtZx", "hf_" + "KqXzWvTr"),
    "npm-token": ("npm_" + _B62[:36], "npm_install_hook"),
    "pypi-token": ("pypi-AgE" + _B62[:80], "pypi-AgE"),
    "sendgrid-key": ("SG." + _B62[:22] + "." + _B62[:43], "SG.render.now"),
    "twilio-key": ("SK" + "9f3b7a1c5e8d2046f7b9a3c1e5d80247", "SK9f3b7a1c"),
    "telegram-token": ("7391846205" + ":AA" + _B62[:33], "7391846205:AA"),
    "discord-webhook": (
        "https://discord.com/api/webhooks/" + "739184620573918462/" + _B62[:68],
        "discord.com/api/webhooks/1/x",
    ),
    "azure-storage-key": ("AccountKey=" + _B62[:86] + "==", "AccountKey=" + _B62[:10] + "=="),
    "url-password": ("postgres://svc:" + "Zk7Qp2Rx9Tv4@db.corp.io/x", "postgres://user:password@localhost/x"),
}


def test_every_rule_has_a_case() -> None:
    assert set(_CASES) == set(RULES)


@pytest.mark.parametrize("rule", _CASES)
def test_it_finds_the_secret_and_not_its_near_miss(rule: str) -> None:
    secret, near_miss = _CASES[rule]
    text = f'KEY = "{secret}"\n'
    found = find_secrets(text)
    assert [hit[0] for hit in found] == [rule]
    assert text[found[0][1] : found[0][2]] in f'"{secret}"'
    assert find_secrets(f'KEY = "{near_miss}"\n') == []


def test_it_never_repeats_the_value() -> None:
    secret = _CASES["github-token"][0]
    assert secret not in repr(find_secrets(f"x = '{secret}'"))
