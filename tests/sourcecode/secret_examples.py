"""Made-up secrets: templates of secret_examples.txt, filled from a seed."""

import random
import re
import string
from pathlib import Path

_HEX = "0123456789abcdef"
_ALPHABETS = {
    "A": string.ascii_letters + string.digits,
    "a": string.ascii_letters,
    "L": string.ascii_lowercase + string.digits,
    "U": string.ascii_uppercase + string.digits,
    "S": string.ascii_uppercase + "234567",
    "Q": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
    "B": string.ascii_letters + string.digits + "+/",
    "W": string.ascii_letters + string.digits + "_-",
    "n": string.digits,
    "h": _HEX,
    "H": _HEX + "ABCDEF",
    "X": _HEX.upper(),
}
_PART = re.compile(r"<(?:(\w)(\d+)|u)>")


def fill(template: str, seed: int = 0) -> str:
    """Return the template with its parts drawn by the seed; each begins and ends with a letter or digit."""
    chance = random.Random(f"{template}{seed}")
    text = template.replace("\\n", "\n").replace("<u>", "<h8>-<h4>-<h4>-<h4>-<h12>")
    return _PART.sub(lambda part: _draw(chance, _ALPHABETS[part[1]], int(part[2])), text)


def read_examples() -> dict[str, tuple[str, str]]:
    """Return example and near miss of each rule."""
    lines = (Path(__file__).parent / "secret_examples.txt").read_text().splitlines()
    rows = [line.split(" | ") for line in lines if not line.startswith("#")]
    return {rule: (fill(example), fill(near_miss)) for rule, example, near_miss in rows}


def _draw(chance: random.Random, alphabet: str, length: int) -> str:
    edges = [letter for letter in alphabet if letter.isalnum()]
    inner = [chance.choice(alphabet) for _ in range(max(0, length - 2))]
    return "".join([chance.choice(edges), *inner, chance.choice(edges)][:length])
