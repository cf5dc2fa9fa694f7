"""Secrets and personal data end to end: no value in the database, in the logs, or in what explain says."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from ingest.commands import ingest as ingest_group
from sourcecode.fingerprints import blob_oid, content_sha256
from sourcecode.secrets import TOKEN_RULES, digest
from tests.ingest.helpers import SETTINGS, make_code
from tests.sourcecode.secret_examples import fill, read_examples

_DROPPING = [rule.rule for rule in TOKEN_RULES if not rule.is_redacted][::20]
_MAIL, _IP, _PASSWORD = "ann" + "@corp.io", "93.184." + "216.34", fill("Zq<A9>7x")
_PRIVATE = f'# By {_MAIL} and bob@corp.io.\nHOST = "{_IP}"\nPASSWORD = "{_PASSWORD}"\n'


def _dump(engine: sa.Engine) -> str:
    """Return every row of every table as text."""
    with engine.begin() as conn:
        tables = sa.inspect(conn).get_table_names()
        rows = [row for table in tables for row in conn.execute(sa.text(f"SELECT t::text FROM {table} t"))]
    return "\n".join(row[0] for row in rows)


def _explain(file: Path) -> Result:
    return CliRunner().invoke(
        ingest_group, ["explain", str(file), "--path", file.name], obj=SimpleNamespace(ingest=SETTINGS)
    )


def test_no_value_reaches_the_database_the_logs_or_the_screen(
    ingest: Callable[..., None],
    make_folder: Callable[..., Path],
    engine: sa.Engine,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    secrets = {rule: read_examples()[rule][0] for rule in _DROPPING}
    files = {f"{rule}.py".replace("-", "_"): f'{make_code("x")}V = """{value}"""\n' for rule, value in secrets.items()}
    root = make_folder("private", {**files, "kept.py": _PRIVATE + make_code("kept")})
    with caplog.at_level("DEBUG"):
        ingest(root)
    shown = "".join(_explain(root / name).output for name in (*files, "kept.py"))
    seen = "".join((_dump(engine), caplog.text, *capfd.readouterr(), shown))
    for value in (*secrets.values(), _MAIL, "bob" + "@corp.io", _IP, _PASSWORD):
        assert value not in seen
        assert json.dumps(value)[1:-1] not in seen
    for rule, value in secrets.items():
        assert seen.count(f"rule {rule} at line 7, sha256 {digest(value.encode())}") == 2  # in its row, and explained


def test_what_is_stored_is_the_redacted_text_and_its_figures_are_that_texts(
    ingest: Callable[..., None], make_folder: Callable[..., Path], engine: sa.Engine
) -> None:
    root = make_folder("private", {"kept.py": _PRIVATE + make_code("kept")})
    ingest(root)
    with engine.begin() as conn:
        row = conn.execute(sa.text("SELECT * FROM processed_files")).one()
    expected = '# By <EMAIL> and <EMAIL>.\nHOST = "<IP>"\nPASSWORD = "<PASSWORD>"\n' + make_code("kept")
    assert row.content == expected
    assert row.content_sha256 == content_sha256(expected)
    assert row.blob_oid == blob_oid((root / "kept.py").read_bytes())
    assert row.num_chars == len(expected)
    assert row.score_detail["redacted"] == {"email": 2, "ip": 1, "password": 1}
    assert "hard-coded-credential" in json.dumps(row.score_detail["details"]["security"])
    assert f"redacted: rule email at line 1, sha256 {digest(_MAIL.encode())}" in _explain(root / "kept.py").output
