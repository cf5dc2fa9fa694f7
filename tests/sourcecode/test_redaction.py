"""Redaction: what is private in strings and comments is replaced, what is not stays, and the text still parses."""

import random
from dataclasses import replace
from unittest.mock import ANY

import pytest

from sourcecode.filters import Verdict, judge
from sourcecode.limits import Limits
from sourcecode.personal import find_personal
from sourcecode.redaction import redact
from sourcecode.secrets import TOKEN_RULES, VENDOR_RULES
from sourcecode.syntax import measure_errors
from tests.sourcecode.secret_examples import fill, read_examples

_REDACTED = {rule.rule for rule in TOKEN_RULES if rule.is_redacted} | {rule.rule for rule in VENDOR_RULES}
_WORD = fill("Zq<A9>7x")
_KEY = fill("<A30>k3")
_MAIL = "ann" + "@corp.io"
_V4, _V6 = "93.184." + "216.34", "2a02:26f0:" + "12::5c7a"


def _find(text: str) -> list[str]:
    data = text.encode()
    return [data[place.start : place.end].decode() for place in find_personal(data)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"by Ann <{_MAIL}>.", [_MAIL]),
        (f"(c) 2024 {_MAIL}, x.y+z@sub.corp.co.uk", [_MAIL, "x.y+z@sub.corp.co.uk"]),
        (f"\\n{_MAIL}", [_MAIL]),
        (f"\\x41{_MAIL} \\u0041{_MAIL}", [_MAIL, _MAIL]),
        (f"https://{_MAIL}/x", [_MAIL]),
        (f"postgres://svc:{_WORD}@db.corp.io/x", [_WORD]),
        (f"ip {_V4}, [{_V6}]:80, http://{_V4}:80/x {_V4}/24", [_V4, _V6, _V4, _V4]),
    ],
)
def test_personal_data_is_found(text: str, found: list[str]) -> None:
    assert _find(text) == found


@pytest.mark.parametrize(
    "text",
    [
        *("git@github.com:a/b", "me@example.com", "a@b.example", "no-reply@corp.io", "ann@localhost", "a@x.test"),
        *(
            "12+ann@users.noreply.github.com",
            "icon@2x.png",
            "a.zip@b.pkl",
            "lodash@4.17.21",
            "pkg@1.2.3.dev",
            "x @ y.com",
            "a@b.to(c)",
        ),
        *("https://u:{password}@corp.io", "https://u:$PASS@corp.io", "https://user:password@corp.io", "<EMAIL>"),
        *("127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.9", "203.0.113.9", "224.0.0.251", "8.8.8.8", "0.0.0.0"),
        *(f"version {_V4}", f'__version__ = "{_V4}"', f"Chrome/{_V4}", f"v{_V4}", f"section {_V4}", f"{_V4}-rc1"),
        *(
            "1.3.6.1",
            "20.20.20.20",
            f"{_V4}.7",
            f"7.{_V4}",
            "256.184.216.34",
            "::1",
            "fe80::1",
            "2001:db8::1",
            "2024:10:12",
        ),
        *("std::dead::beef", "2606:4700:4700::1111"),
    ],
)
def test_what_is_nobodys_stays(text: str) -> None:
    assert _find(text) == []


# Language, text with {} where something private stands, and what stands there afterwards.
_FRAMES = [
    ("python", '"""By {}."""\nx = "a {}\\n"  # {}\ny = f"{{x}} {}"\n', "{}"),
    ("go", 'package p\n\n// By {}.\nvar x = `raw {}`\nvar y = "a {}\\n" /* {} */\n', "{}"),
    ("rust", '//! {}\n/// {}\nfn f() {{ println!("{} {{}}", 1); let _ = r#"{}"#; }}\n', "{}"),
    ("javascript", "// {}\nconst x = '{}', y = `a {} ${{x}} {}`, z = /a {}/;\n", "{}"),
    ("javascript", "const x = <p>{} and {}</p>;\n", '{{"{}"}}'),
    ("typescript", "/** {} */\nconst x: string = '{}';\n", "{}"),
    ("dart", '/// {}\nvar x = \'{}\'; var y = """{} $x""";\n', "{}"),
]


@pytest.mark.parametrize(("private", "placeholder", "kind"), [(_MAIL, "<EMAIL>", "email"), (_V4, "<IP>", "ip")])
@pytest.mark.parametrize(("language", "frame", "shown"), _FRAMES)
def test_the_placeholder_stands_in_every_kind_of_text_and_it_still_parses(
    language: str, frame: str, shown: str, private: str, placeholder: str, kind: str
) -> None:
    num = frame.replace("{{}}", "").count("{}")
    data = frame.format(*[private] * num).encode()
    done = redact(language, data.decode())
    assert not isinstance(done, str)
    assert done.text == frame.format(*[shown.format(placeholder)] * num)
    assert done.counts == {kind: num}
    assert not isinstance(done.tree, str)
    assert measure_errors(done.tree) == 0


def test_code_is_not_redacted() -> None:
    text = "product = left@right.mean\n"
    assert _find(text)
    assert _judge(f"{text}\n{_CODE}").text == f"{text}\n{_judge(_CODE).text}"


_CODE = f'''# By {_MAIL}.
HOST = "{_V4}"
password = "{_WORD}"
api_key = "{_KEY}"


def connect(host: str) -> str:
    """Connect to a host."""
    return f"postgres://svc:{_WORD}@{{host}}"
'''


def _judge(text: str) -> Verdict:
    return judge("a.py", text.encode(), Limits())


def test_a_kept_file_says_how_often_what_was_replaced() -> None:
    verdict = _judge(_CODE)
    assert verdict.accepted
    assert verdict.redacted == {"email": 1, "ip": 1, "password": 1, "key": 1}
    assert [place.split(",")[0] for place in verdict.redactions] == [
        "rule email at line 1",
        "rule ip-address at line 2",
        "rule password at line 3",
        "rule generic-key at line 4",
    ]
    assert verdict.tree is not None
    assert verdict.tree.root_node.text == (verdict.text or "").encode()
    for value in (_MAIL, _V4, _KEY, f'"{_WORD}"'):
        assert value not in repr(verdict)


def test_redacting_twice_is_redacting_once() -> None:
    once = _judge(_CODE)
    twice = _judge(once.text or "")
    assert twice.text == once.text
    assert twice.redacted == {}


@pytest.mark.parametrize("seed", range(20))
def test_redacting_twice_is_redacting_once_for_any_mixture(seed: int) -> None:
    chance = random.Random(seed)
    pieces = [
        _MAIL,
        _V4,
        _V6,
        _WORD,
        _KEY,
        "password=",
        "api_key: ",
        '"',
        "'",
        "\\n",
        "@",
        "://u:",
        ".",
        ":",
        "<EMAIL>",
    ]
    pieces += [example for rule, (example, _) in sorted(read_examples().items()) if rule in _REDACTED]
    for _ in range(20):
        text = "# " + "".join(chance.choice(pieces) for _ in range(30)) + "\n"
        once = redact("python", text)
        if not isinstance(once, str):  # pieces put together may be what drops a file
            assert redact("python", once.text) == replace(once, counts={}, places=(), tree=ANY)


def test_a_file_with_an_unmistakable_secret_is_dropped_without_its_value() -> None:
    secret = read_examples()["github-personal-token"][0]
    verdict = _judge(_CODE + f'TOKEN = "{secret}"\n')
    assert (verdict.accepted, verdict.reason, verdict.text) == (False, "secret", None)
    assert (verdict.detail or "").startswith("rule github-personal-token at line 10, sha256 ")
    assert secret not in repr(verdict)
