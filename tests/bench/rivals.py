"""Whom ingest is measured beside: scc, a line counter, and OpenCoder's published filters; run, and not shipped."""

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from ingest.folders import Folder
from ingest.judge import judge_file
from sourcecode.filters import judge_size
from sourcecode.languages import detect_language
from sourcecode.limits import Limits
from sourcecode.paths import judge_path

_SUFFIXES = "dart,go,js,mjs,cjs,jsx,py,pyi,rs,ts,tsx,mts,cts"
_LIMITS = Limits()
# In OpenCoder's own interpreter, in its checkout: signals, then thresholds, for a file a line.
_OPENCODER = """
import contextlib, json, os, sys, time
from pipeline.compute_filtering import CodeFilter
from pipeline.compute_quality_signals import ComputeCodeQualitySignal
signals, filters = ComputeCodeQualitySignal(), CodeFilter()
files = [json.loads(line) for line in sys.stdin]
start = time.process_time()
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
    for file in files:
        text, language = file["text"], file["language"]
        extension, num_bytes = file["path"].rpartition(".")[2], len(text.encode())
        found = json.loads(signals.evaluate(text, file["path"], "en", extension, num_bytes, language, "code"))
        filters.evaluate("code", "en", language, found.get("quality_signal"))
print(time.process_time() - start)
"""

File = tuple[str, bytes]


def count_lines(trees: Sequence[Path]) -> tuple[int, float] | None:
    """Return the bytes of the same languages whose lines scc counts, and the seconds it takes; None without scc."""
    if not shutil.which("scc"):
        return None
    command = ["scc", "--format", "json", "--no-cocomo", "--include-ext", _SUFFIXES, *map(str, trees)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    return sum(int(language["Bytes"]) for language in json.loads(done.stdout)), seconds


def pick_files(trees: Sequence[Path], most: int) -> list[File]:
    """Return files of the trees that ingest would read, at equal distances, as paths and texts in UTF-8."""
    found = []
    for tree in trees:
        folder = Folder(str(tree), max_file_bytes=_LIMITS.max_file_bytes, max_entries=1_000_000)
        for entry in folder.list_entries():
            is_refused = entry.reason or judge_path(entry.path, _LIMITS, is_executable=entry.is_executable)
            if not is_refused and not judge_size(entry.num_bytes, _LIMITS):
                found.append((folder, entry))
    read = ((entry.path, folder.read(entry) or b"") for folder, entry in found[:: max(1, len(found) // most)])
    return [(path, data) for path, data in read if _is_text(data)]


def time_judge(files: Sequence[File]) -> float:
    """Return how long our judge takes for the files, with all filters, secrets, licence and score (processor time)."""
    start = time.process_time()
    for path, data in files:
        judge_file(path, data, _LIMITS, is_executable=True)
    return time.process_time() - start


def time_opencoder(files: Sequence[File], checkout: Path, python: str) -> float:
    """Return how long OpenCoder's signals and thresholds take for the same files (processor time)."""
    lines = (
        json.dumps({"path": path, "text": data.decode(), "language": detect_language(path, data) or "unknown"})
        for path, data in files
    )
    done = subprocess.run(
        [python, "-c", _OPENCODER], cwd=checkout, input="\n".join(lines), check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def _is_text(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False
