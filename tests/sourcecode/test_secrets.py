"""Secrets: a made-up example and a near miss for each rule; placeholders; floods; nothing is ever repeated."""

import pytest

from sourcecode.secrets import MAX_PLACES, OTHER_RULES, TOKEN_RULES, VENDOR_RULES, describe, find_secrets
from tests.sourcecode.secret_examples import fill, read_examples

_EXAMPLES = read_examples()
_SEQUENCE = "0123456789abcdefghijklmnopqrstuvwxyz"
_PASSWORD, _KEY = fill("Zq<A9>7x"), fill("<A30>k3")


def _rules(text: str) -> list[str]:
    return [secret.rule for secret in find_secrets(text.encode())]


def test_each_of_150_rules_and_more_has_its_example() -> None:
    names = [rule.rule for rule in (*TOKEN_RULES, *VENDOR_RULES)]
    assert len(names) == len(set(names)) >= 150
    assert set(_EXAMPLES) == set(names)


@pytest.mark.parametrize("rule", _EXAMPLES)
def test_the_example_is_found_and_its_near_miss_is_not(rule: str) -> None:
    example, near_miss = _EXAMPLES[rule]
    shown = example if " = " in example else f'value = "{example}"'
    found = find_secrets(f"# é\n{shown}\n".encode())
    assert [secret.rule for secret in found] == [rule]
    assert f"# é\n{shown}\n".encode()[found[0].start : found[0].end].decode() in example
    assert rule not in _rules(near_miss if " = " in near_miss else f'value = "{near_miss}"')


@pytest.mark.parametrize("frame", ["Q{}", "{}Q", "x_{}"])
def test_a_part_of_a_longer_word_is_no_secret(frame: str) -> None:
    assert _rules(f'value = "{frame.format(_EXAMPLES["github-personal-token"][0])}"') == []


@pytest.mark.parametrize(
    "frame", ["{}", "\\n{}\\n", "https://x.io/?k={}&b=1", "Bearer {}", "é{}é", "<v>{}</v>", "{}-old", "a,{},b"]
)
def test_it_is_found_whatever_stands_around_it(frame: str) -> None:
    assert _rules(f'value = "{frame.format(_EXAMPLES["github-personal-token"][0])}"') == ["github-personal-token"]


@pytest.mark.parametrize(
    "shown",
    [*("AKIA" + end for end in ("IOSFODNN7EXAMPLE", "X" * 16)), *("ghp_" + end for end in ("x" * 36, _SEQUENCE))],
)
def test_what_documentation_shows_is_no_secret(shown: str) -> None:
    assert _rules(f"value = '{shown}'") == []


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (f'password = "{_PASSWORD}"', "password"),
        (f"db.PASSWD: '{_PASSWORD}'", "password"),
        (f'const userPassword: string = "{_PASSWORD}";', "password"),
        (f'static ADMIN_PWD: &str = "{_PASSWORD}";', "password"),
        (f'api_key := "{_KEY}"', "generic-key"),
        (f'{{"clientSecret": "{_KEY}"}}', "generic-key"),
        ('password = "correct horse"', None),
        ('password = "changeme123"', None),
        ('password = "{password}1"', None),
        ('password = os.environ["DB_PASSWORD_2"]', None),
        ('password_field = "login_password_2"', None),
        ('token = "access_token_v2_expired"', None),
        ('TokenTimeout = "K6_BROWSER_TIMEOUT_2"', None),
        ('tokenizer = "Qwen2TokenizerFastWithPadding"', None),
        ('api_key = "your-api-key-4f8a9b2c7d"', None),
        ('secret = "aaaaaaaa1111111122222222"', None),
        ('("deepseek_v32", "DeepseekV32ForCausalLM")', None),
        ('secret_url = "https://x.io/a1b2c3d4e5f6g7"', None),
    ],
)
def test_a_value_without_a_form_is_judged_by_its_name_and_looks(line: str, rule: str | None) -> None:
    assert _rules(line) == ([rule] if rule else [])


def test_a_value_for_drops_goes_before_one_for_redaction() -> None:
    example = _EXAMPLES["github-personal-token"][0]
    assert [(s.rule, s.placeholder) for s in find_secrets(f'api_token = "{example}"'.encode())] == [
        ("github-personal-token", None)
    ]


def test_a_secret_is_described_by_rule_line_and_hash_prefix() -> None:
    example = _EXAMPLES["github-personal-token"][0]
    data = f"a\nb = '{example}'\n".encode()
    words = describe(data, find_secrets(data)[0])
    assert words.startswith("rule github-personal-token at line 2, sha256 ")
    assert len(words.rsplit(" ", 1)[1]) == 8
    assert example not in words + repr(find_secrets(data))


@pytest.mark.parametrize("words", ["ghp_" + "A" * 8 + " ", 'token = "abcdefgh" '])
def test_a_flood_of_look_alikes_is_looked_at_no_further(words: str) -> None:
    assert [secret.rule for secret in find_secrets(words.encode() * (MAX_PLACES + 1))] == ["look-alikes"]
    assert set(OTHER_RULES) >= {"look-alikes"}
