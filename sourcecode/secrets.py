"""Secrets that somebody committed: formats that are unmistakable, found without ever repeating the value.

A first small set, from the providers' published token formats. Every pattern is bounded, so time stays linear.
"""

import re

# rule -> (words of which one must be there, pattern)
_RULES: dict[str, tuple[tuple[str, ...], str]] = {
    "private-key": (
        ("PRIVATE KEY",),
        r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----(?:\\n|[\"'+\s]){0,16}[A-Za-z0-9+/=]{32}",
    ),
    "aws-access-key": (("AKIA", "ASIA", "ABIA", "ACCA"), r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    "github-token": (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
    "github-fine-grained-token": (("github_pat_",), r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b"),
    "gitlab-token": (("glpat-",), r"\bglpat-[A-Za-z0-9_-]{20}\b"),
    "slack-token": (("xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-"), r"\bxox[bpars]-[0-9]{8,14}-[0-9A-Za-z-]{16,80}"),
    "slack-webhook": (
        ("hooks.slack.com",),
        r"hooks\.slack\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{24}\b",
    ),
    "stripe-key": (("sk_live_", "rk_live_"), r"\b[sr]k_live_[A-Za-z0-9]{24,99}\b"),
    "google-api-key": (("AIza",), r"\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    "google-oauth-secret": (("GOCSPX-",), r"\bGOCSPX-[A-Za-z0-9_-]{28}(?![A-Za-z0-9_-])"),
    "openai-key": (("T3BlbkFJ",), r"\bsk-[A-Za-z0-9_-]{20,80}T3BlbkFJ[A-Za-z0-9_-]{20,80}"),
    "anthropic-key": (("sk-ant-",), r"\bsk-ant-(?:api|admin)[0-9]{2}-[A-Za-z0-9_-]{80,110}"),
    "huggingface-token": (("hf_",), r"\bhf_[A-Za-z]{34}\b"),
    "npm-token": (("npm_",), r"\bnpm_[A-Za-z0-9]{36}\b"),
    "pypi-token": (("pypi-AgE",), r"\bpypi-AgE[A-Za-z0-9_-]{60,400}"),
    "sendgrid-key": (("SG.",), r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b"),
    "twilio-key": (("SK",), r"\bSK[0-9a-f]{32}\b"),
    "telegram-token": ((":AA",), r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])"),
    "discord-webhook": (("/api/webhooks/",), r"discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{60,80}"),
    "azure-storage-key": (("AccountKey=",), r"\bAccountKey=[A-Za-z0-9+/]{86}=="),
    "url-password": (
        ("://",),
        r"\b(?:postgres(?:ql)?|mysql|mongodb(?:\+srv)?|rediss?|amqps?)://[\w.%+-]{1,64}:(?!\$|%|\{|<|\*|pass|secret|example|test|user|root|admin|postgres|guest)[^@\s/\"'{}$<>]{8,64}@(?!localhost|127\.|example)[\w.-]{4,100}",
    ),
}
_COMPILED = {rule: (words, re.compile(pattern)) for rule, (words, pattern) in _RULES.items()}
# Documentation shows keys that nobody can use: AWS's own example ends in EXAMPLE, others repeat a character.
_PLACEHOLDER = re.compile(r"(?i)example|xxxxx|00000000|123456789|abcdefgh|(.)\1{9}")

RULES = tuple(_RULES)


def find_secrets(text: str) -> list[tuple[str, int, int]]:
    """Return (rule, start, end) of each secret, in the order of the text; the value itself stays where it is."""
    found: list[tuple[str, int, int]] = []
    for rule, (words, pattern) in _COMPILED.items():
        if any(word in text for word in words):
            found.extend((rule, hit.start(), hit.end()) for hit in pattern.finditer(text) if not _is_shown(hit[0]))
    return sorted(found, key=lambda hit: hit[1])


def _is_shown(value: str) -> bool:
    return _PLACEHOLDER.search(value) is not None
