"""The child process that scores stored texts again: `python -m ingest.scorer`, in the box of those who parse code.

A line on standard input is one text with its language, the line on standard output that answers it its score, or the
reason why there is none. The end of the input, which is the worker's too, ends it.
"""

import json
import os
import sys
from typing import Any

from ingest.box import enter_box
from sourcecode.scores import score
from sourcecode.syntax import parse


def main() -> None:
    """Enter the box, answer each line."""
    enter_box(**json.loads(sys.stdin.buffer.readline()))
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever prints to standard output by mistake must not be read as an answer.
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        answers.write(json.dumps(_score(asked["language"], asked["text"])).encode() + b"\n")
        answers.flush()


def _score(language: str, text: str) -> dict[str, Any]:
    tree = parse(language, text)
    if isinstance(tree, str):
        return {"reason": tree}
    found = score(language, text, tree)
    return {"score": found.total, "detail": {"components": found.components, "details": found.details}}


if __name__ == "__main__":
    main()
