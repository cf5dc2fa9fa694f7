"""What the child that reads hostile content is made of."""

import subprocess
import sys


def test_the_child_imports_no_database_and_no_settings() -> None:
    code = "import sys, ingest.child; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert not {"sqlalchemy", "psycopg", "schema.tables", "ingest.config"} & set(done.stdout.split())
