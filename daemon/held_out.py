"""What a base of one's own is measured on: whole units of its text, chosen by hash, which it does not learn."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from daemon.files import write_lines
from daemon.job import MEMBERS, VALIDATION, Item
from sourcecode.fingerprints import stable_share

MOST_SEQUENCES = 256  # that are measured: more would only say the same more slowly
LARGEST_UNIT = 0.1  # of the text: more is too much to do without
_CHARS_PER_TOKEN = 3


def choose_units(chars: Mapping[str, int], share: float, most_chars: int) -> set[str]:
    """Return units in the order of their hash until they have that share of all characters, or as many as may be.

    The same ones for the same text, whatever its order; at least one where one is small enough.
    """
    total = sum(chars.values())
    left = min(share * total, most_chars)
    chosen = set()
    for unit in sorted(chars, key=stable_share):
        if left <= 0:
            break
        if chars[unit] <= LARGEST_UNIT * total:
            chosen.add(unit)
            left -= chars[unit]
    return chosen


def write_material(job_dir: Path, items: Iterable[Item], share: float, sequence_tokens: int) -> int:
    """Write all text as MEMBERS, and what is held out of it once more as VALIDATION; return how many texts that is.

    Who reads MEMBERS leaves out what has the same content as a text of VALIDATION: so no copy of it is learned either.
    """
    chars: Counter[str] = Counter()

    def counted() -> Iterator[str]:
        for item in items:
            chars[item.unit] += len(item.content)
            yield item.model_dump_json()

    write_lines(job_dir / MEMBERS, counted())
    chosen = choose_units(chars, share, MOST_SEQUENCES * sequence_tokens * _CHARS_PER_TOKEN)
    with (job_dir / MEMBERS).open(encoding="utf-8") as file:
        lines = (line.rstrip("\n") for line in file)
        held_out = (line for line in lines if chosen and Item.model_validate_json(line).unit in chosen)
        return write_lines(job_dir / VALIDATION, held_out)
