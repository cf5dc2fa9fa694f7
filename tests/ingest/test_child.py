"""What the child that reads hostile content is made of."""

import subprocess
import sys

# Ours may have a gigabyte; what we start has started another before we come to halve that.
_LATE = """
import pathlib, resource, subprocess
from ingest.box import squeeze
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
command, pipe = ["sh", "-c", "exec 3<&0; cat <&3 & echo $!; wait"], subprocess.PIPE
with subprocess.Popen(command, stdin=pipe, stdout=pipe) as shell:
    started = int(shell.stdout.readline())
    squeeze(shell.pid)
    for pid in (shell.pid, started):
        print([line for line in pathlib.Path(f"/proc/{pid}/limits").read_text().splitlines() if "data" in line][0])
"""


def test_the_child_imports_no_database_and_no_settings() -> None:
    code = "import sys, ingest.child; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert not {"sqlalchemy", "psycopg", "schema.tables", "ingest.config"} & set(done.stdout.split())


def test_half_of_the_memory_is_left_to_what_git_started_before_it_was_taken() -> None:
    done = subprocess.run([sys.executable, "-c", _LATE], check=True, capture_output=True, text=True)
    assert [line.split()[3:5] for line in done.stdout.splitlines()] == [[str(1 << 29)] * 2] * 2
