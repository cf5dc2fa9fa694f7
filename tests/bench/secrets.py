"""Measure the search for secrets and personal data: speed, hits by rule, and the worst that a made-up text can cost.

`python -m tests.bench.secrets TREE… [--json]`. Speeds are those of one process in seconds of its own CPU time, best of
`--rounds`, in turns with the rivals: Python's `re` with the same token rules and no prefilter, and detect-secrets where
it is installed, both on a sample of the same files since they are slow.
"""

import argparse
import importlib.util
import json
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sourcecode.languages import detect_language
from sourcecode.limits import Limits
from sourcecode.redaction import find_private
from sourcecode.secrets import TOKEN_RULES, VENDOR_RULES, find_secrets

_SAMPLE_BYTES = 500_000
_FLOOD_BYTES = 1_000_000


def read_files(trees: Sequence[Path]) -> list[tuple[Path, bytes]]:
    """Return the files of the six languages that are not too large, with their content."""
    files = []
    for path in sorted({path for tree in trees for path in tree.rglob("*")}):
        if path.is_file() and not path.is_symlink() and detect_language(path.name):
            data = path.read_bytes()
            if len(data) <= Limits().max_file_bytes:
                files.append((path, data))
    return files


def measure(trees: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Return the report; all speeds in MB/s of one core."""
    files = read_files(trees)
    contents = [data for _, data in files]
    sample = _draw_sample(contents)
    contenders: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
        "mb_per_s": (find_private, contents),
        "secrets_mb_per_s": (find_secrets, contents),
        "sample_mb_per_s": (find_secrets, sample),
        "python_re_mb_per_s": (_make_python_re(), sample),
    }
    if rival := _make_detect_secrets():
        contenders["detect_secrets_mb_per_s"] = (rival, sample)
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, (scan, texts) in contenders.items():
            best[name] = min(best[name], _time(scan, texts))
    speeds = {name: round(sum(map(len, contenders[name][1])) / 1e6 / best[name], 3) for name in contenders}
    return {
        "files": len(files),
        "bytes": sum(map(len, contents)),
        "seconds": round(best["mb_per_s"], 3),
        "detect_secrets_mb_per_s": None,
        **speeds,
        "ratio_to_python_re": round(speeds["sample_mb_per_s"] / speeds["python_re_mb_per_s"], 1),
        **_count_hits(files),
        **measure_floods(),
    }


def measure_floods() -> dict[str, Any]:
    """Return the time that 1 MB of the worst rule's begin, repeated, takes, in ms."""
    worst: dict[str, float] = {}
    for rule, text in _make_floods():
        data = (text * (_FLOOD_BYTES // len(text.encode()) + 1)).encode()[:_FLOOD_BYTES]
        worst[rule] = min(_time(find_private, [data]) for _ in range(3)) * 1000
    name = max(worst, key=lambda rule: worst[rule])
    return {"floods": len(worst), "worst_flood": name, "worst_flood_ms": round(worst[name], 1)}


def _make_floods() -> list[tuple[str, str]]:
    floods = [(f"{rule.rule}: {word}", word) for rule in TOKEN_RULES for word in rule.words]
    floods += [(f"{rule.rule}: {word} and body", f"{word}a1B2c3D4") for rule in TOKEN_RULES for word in rule.words]
    floods += [(rule.rule, name) for rule in VENDOR_RULES for name in rule.names]
    floods += [(f"{rule.rule} =", f'{name} = "') for rule in VENDOR_RULES for name in rule.names]
    shapes = (
        'password = "',
        "a@",
        "a@b.c",
        "1.1.1.",
        "1.1.1.1 ",
        "2a02:",
        "://a:b",
        "ey",
        "eyJa.eyJ",
        "a",
        "-",
        "\\",
        '"',
    )
    return floods + [(f"shape {shape}", shape) for shape in shapes]


def _count_hits(files: list[tuple[Path, bytes]]) -> dict[str, Any]:
    dropping: Counter[str] = Counter()
    redacting: Counter[str] = Counter()
    dropped = redacted = 0
    for _, data in files:
        found = find_private(data)
        dropping.update({secret.rule for secret in found if secret.placeholder is None})
        redacting.update(secret.rule for secret in found if secret.placeholder is not None)
        dropped += any(secret.placeholder is None for secret in found)
        redacted += any(secret.placeholder is not None for secret in found)
    return {
        "dropped_files": dropped,
        "dropped_share": dropped / max(1, len(files)),
        "files_with_redactions": redacted,
        "drops_by_rule": dict(dropping.most_common()),
        "redactions_by_rule": dict(redacting.most_common()),
    }


def _draw_sample(contents: list[bytes]) -> list[bytes]:
    shuffled = random.Random(1).sample(contents, len(contents))
    sample, size = [], 0
    for data in shuffled:
        if size < _SAMPLE_BYTES:
            sample.append(data)
            size += len(data)
    return sample


def _make_python_re() -> Callable[[bytes], object]:
    patterns = [re.compile(rule.pattern.encode()) for rule in TOKEN_RULES]
    return lambda data: [pattern.findall(data) for pattern in patterns]


def _make_detect_secrets() -> Callable[[bytes], object] | None:
    if importlib.util.find_spec("detect_secrets") is None:
        return None
    from detect_secrets import SecretsCollection
    from detect_secrets.settings import default_settings

    folder = Path(tempfile.mkdtemp())

    def scan(data: bytes) -> object:
        file = folder / "a.py"
        file.write_bytes(data)
        with default_settings():
            secrets = SecretsCollection()
            secrets.scan_file(str(file))
        return secrets

    return scan


def _time(scan: Callable[[bytes], object], texts: Sequence[bytes]) -> float:
    start = time.process_time()
    for text in texts:
        scan(text)
    return max(time.process_time() - start, 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the search for secrets and personal data.")
    parser.add_argument("trees", nargs="+", type=Path, metavar="TREE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report = measure(options.trees, options.rounds)
    print(json.dumps(report) if options.json else "\n".join(f"{key}: {value}" for key, value in report.items()))


if __name__ == "__main__":
    main()
