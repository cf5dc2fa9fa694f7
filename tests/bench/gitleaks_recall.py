"""Measure the recall of our secret rules on the positive examples of gitleaks' public tests.

`python -m tests.bench.gitleaks_recall CHECKOUT [--json]`, where CHECKOUT is a clone of gitleaks/gitleaks. The examples
are read from `cmd/generate/config/rules/*.go` by a small reader of Go expressions: literals, concatenation, Sprintf and
the generators of those files. What they leave to chance is drawn from a seed. Nothing of gitleaks is kept here.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

from sourcecode.secrets import find_secrets

# Public identifiers, and rules that look at file names: no secret that a text could hold. Not counted.
NOT_COVERED = frozenset(
    (
        *("adobe-client-id", "asana-client-id", "bitbucket-client-id", "discord-client-id", "linkedin-client-id"),
        *("looker-client-id", "messagebird-client-id", "plaid-client-id", "flutterwave-public-key", "mailgun-pub-key"),
        *("mapbox-api-token", "lob-pub-api-key", "pkcs12-file", "gcp-service-account", "sendbird-access-id"),
        # Shell commands, manifests and project files: not in the languages that are read.
        *("curl-auth-header", "curl-auth-user", "kubernetes-secret-yaml", "nuget-config-password", "jwt-base64"),
        # Anything assigned to anything: not a kind.
        *("generic-api-key", "hashicorp-tf-password"),
    )
)
_TOKEN = re.compile(
    r"//[^\n]*|/\*.*?\*/|`(?P<raw>[^`]*)`|\"(?P<text>(?:[^\"\\\n]|\\.)*)\"|(?P<name>[A-Za-z_]\w*)|(?P<num>\d+)"
    r"|(?P<sign>:=|\.\.\.|\S)",
    re.DOTALL,
)
_CLASSES = {
    "Numeric": "[0-9]",
    "Hex": "[a-f0-9]",
    "AlphaNumeric": "[a-z0-9]",
    "AlphaNumericExtendedShort": "[a-z0-9_-]",
    "AlphaNumericExtended": "[a-z0-9=_-]",
    "AlphaNumericExtendedLong": "[a-z0-9/=_+-]",
}
_NUM_SEEDS = 8  # for most rules one value is drawn for all of its examples
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def read_examples(checkout: Path, seed: int) -> dict[str, list[str]]:
    """Return the positive examples by gitleaks' rule id."""
    examples: dict[str, list[str]] = {}
    forms = _read_forms(checkout / "cmd/generate/config/utils/generate.go")
    for path in sorted((checkout / "cmd/generate/config/rules").glob("*.go")):
        for function in re.split(r"^func ", path.read_text(), flags=re.MULTILINE)[1:]:
            rule = re.search(r'RuleID:\s*"([^"]+)"', function)
            if rule:
                reader = _Reader(function, forms, random.Random(f"{seed}{rule[1]}"))
                examples.setdefault(rule[1], []).extend(reader.read())
    return examples


def _read_forms(path: Path) -> list[str]:
    """Return the templates in which an example is shown, with {i}, {I} and {s}."""
    body = path.read_text().split("samples := map[string]string{")[1].split("replacer :=")[0]
    tokens = [match for match in _TOKEN.finditer(body) if not match[0].startswith(("//", "/*"))]
    texts = [_read_literal(match) for match in tokens if match["raw"] is not None or match["text"] is not None]
    return texts[1::2]


def _read_literal(match: re.Match[str]) -> str:
    return match["raw"] if match["raw"] is not None else json.loads(f'"{match["text"]}"')


class _Reader:
    """Reads the assignments of one Go function for the values of its variable `tps`."""

    def __init__(self, source: str, forms: list[str], chance: random.Random) -> None:
        self._tokens = [match for match in _TOKEN.finditer(source) if not match[0].startswith(("//", "/*"))]
        self._forms, self._chance = forms, chance
        self._values: dict[str, Any] = {}

    def read(self) -> list[str]:
        for at in range(1, len(self._tokens)):
            if self._tokens[at][0] in (":=", "=") and self._tokens[at - 1]["name"]:
                self._at = at + 1
                try:
                    self._values[self._tokens[at - 1][0]] = self._read_sum()
                except (ValueError, IndexError, KeyError):
                    continue
        found = self._values.get("tps", [])
        return [text for text in found if isinstance(text, str)]

    def _next(self) -> re.Match[str]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _read_sum(self) -> Any:
        value = self._read_one()
        while self._peek() == "+":
            self._next()
            value = value + self._read_one()
        return value

    def _read_one(self) -> Any:
        token = self._next()
        if token["raw"] is not None or token["text"] is not None:
            return _read_literal(token)
        if token[0] == "[":
            self._skip_to("{")
            return self._read_list("}")
        if not token["name"]:
            raise ValueError(token[0])
        name = token[0]
        while self._peek() == ".":
            self._next()
            name = self._next()[0]
        if self._peek() != "(":
            return self._values[name]
        self._next()
        return self._call(name, self._read_list(")"))

    def _skip_to(self, sign: str) -> None:
        while self._next()[0] != sign:
            pass

    def _read_list(self, end: str) -> list[Any]:
        values = []
        while self._peek() != end:
            value = self._read_sum()
            is_spread = self._peek() == "..."
            if is_spread:
                self._next()
            values.extend(value if is_spread else [value])
            if self._peek() == ",":
                self._next()
        self._next()
        return values

    def _call(self, name: str, values: list[Any]) -> Any:
        if name == "NewSecret":
            return "".join(_draw(_parser.parse(values[0].replace(r"\z", "")), self._chance))
        if name in _CLASSES:
            return f"{_CLASSES[name]}{{{values[0]}}}"
        if name == "Hex8_4_4_4_12":
            return _UUID
        if name == "append":
            return [*values[0], *values[1:]]
        if name == "Sprintf":
            return values[0] % tuple(values[1:])
        if name == "GenerateSampleSecret":
            return f'{values[0]}_api_token = "{values[1]}"'
        if name == "GenerateSampleSecrets":
            return [
                form.replace("{i}", values[0]).replace("{I}", values[0].upper()).replace("{s}", values[1])
                for form in self._forms
            ]
        raise ValueError(name)


def _draw(parsed: Any, chance: random.Random) -> Iterator[str]:
    """Yield the parts of one text that a parsed pattern matches."""
    for kind, value in parsed:
        if kind is _constants.LITERAL:
            yield chr(value)
        elif kind is _constants.IN:
            yield chance.choice([*_letters(value)])
        elif kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            low, high, inner = value
            for _ in range(chance.randint(low, min(high, low + 8))):
                yield from _draw(inner, chance)
        elif kind is _constants.SUBPATTERN:
            yield from _draw(value[3], chance)
        elif kind is _constants.BRANCH:
            yield from _draw(chance.choice(value[1]), chance)
        elif kind is not _constants.AT:
            raise ValueError(str(kind))


def _letters(items: Any) -> Iterator[str]:
    for kind, value in items:
        if kind is _constants.LITERAL:
            yield chr(value)
        elif kind is _constants.RANGE:
            yield from map(chr, range(value[0], value[1] + 1))
        elif value is _constants.CATEGORY_DIGIT:
            yield from "0123456789"
        else:
            yield from "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"


def measure(checkout: Path) -> dict[str, Any]:
    """Return found and all examples, over all covered rules and for each, and the rules that are missed somewhere."""
    found: Counter[str] = Counter()
    total: Counter[str] = Counter()
    missed: dict[str, list[str]] = {}
    drawn = [item for seed in range(1, _NUM_SEEDS + 1) for item in read_examples(checkout, seed).items()]
    for rule, examples in drawn:
        for example in examples if rule not in NOT_COVERED else ():
            total[rule] += 1
            if find_secrets(example.encode()):
                found[rule] += 1
            else:
                missed.setdefault(rule, []).append(example)
    return {
        "rules": len(total),
        "found": sum(found.values()),
        "examples": sum(total.values()),
        "recall": sum(found.values()) / max(1, sum(total.values())),
        "missed": {rule: [len(texts), total[rule], texts[0][:300]] for rule, texts in missed.items()},
        "not_covered": sorted(NOT_COVERED),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = measure(options.checkout)
    if options.json:
        print(json.dumps(report))
        return
    print(f"{report['found']} of {report['examples']} examples of {report['rules']} rules: {report['recall']:.2%}")
    for rule, (num, total, text) in sorted(report["missed"].items(), key=lambda item: -item[1][0]):
        print(f"  {rule}: {num} of {total} missed, such as {text!r}")


if __name__ == "__main__":
    main()
