"""The embedded server as its clients live with it: start, join, leave, stop, and every plug pulled."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from schema.embedded import EmbeddedError, ServerInUse, ServerStatus, open_server, server_status, stop_server
from schema.keeper_client import try_lock
from schema.places import Places
from tests.waiting import DEADLINE_S, wait_for

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
FAST = {"fsync": "off"}
# A client in a process of its own: joins, tells what it sees, and stays until its input ends.
CLIENT = """
import dataclasses, json, sys
from pathlib import Path
from schema.embedded import open_server, server_status
with open_server(Path(sys.argv[1]), purpose="other", options={"fsync": "off"}, grace_s=0.0) as server:
    print(json.dumps({"url": server.url, "keeper_pid": server_status(Path(sys.argv[1])).keeper_pid}), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "home"
    yield path
    wait_for(lambda: not Places(path).sockets.exists())


def is_gone(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def status_of(home: Path) -> ServerStatus:
    status = server_status(home)
    assert status is not None
    return status


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def save_rows(url: str) -> None:
    with connect(url) as conn:
        conn.execute("CREATE TABLE kept AS SELECT generate_series(1, 200) AS id")


def count_rows(url: str) -> int:
    with connect(url) as conn:
        return conn.execute("SELECT count(*) FROM kept").fetchone()[0]


@contextmanager
def other_client(home: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", CLIENT, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        yield client


def test_it_starts_serves_and_leaves_nothing_behind(home: Path) -> None:
    with open_server(home, grace_s=0.0) as server:
        status = status_of(home)
        with connect(server.url) as conn:
            row = conn.execute(
                "SELECT current_database(), current_user, current_setting('fsync'),"
                " current_setting('listen_addresses'), current_setting('server_encoding')"
            ).fetchone()
        assert stat.S_IMODE(Places(home).sockets.stat().st_mode) == 0o700
    wait_for(lambda: is_gone(status.keeper_pid) and is_gone(status.postgres_pid))
    assert row == ("codelupe", "codelupe", "on", "", "UTF8")
    assert (status.is_ready, status.pinned, status.url) == (True, False, server.url)
    assert status.data_bytes > 1_000_000
    assert [client.pid for client in status.clients] == [os.getpid()]
    assert not Places(home).sockets.exists()
    assert server_status(home) is None


def test_another_process_joins_and_is_dropped_when_killed(home: Path) -> None:
    with open_server(home, options=FAST, grace_s=0.0, purpose="test") as server, other_client(home) as other:
        assert json.loads(other.stdout.readline())["url"] == server.url
        with pytest.raises(ServerInUse, match=rf"2 client\(s\): {os.getpid()} \(test\), {other.pid} \(other\)"):
            stop_server(home)
        other.kill()
        wait_for(lambda: [client.pid for client in status_of(home).clients] == [os.getpid()])
        assert server.is_alive()


def test_the_server_outlives_the_one_that_started_it(home: Path) -> None:
    with other_client(home) as other:
        url = json.loads(other.stdout.readline())["url"]
        server = open_server(home, grace_s=0.0)
        other.kill()
        wait_for(lambda: len(status_of(home).clients) == 1)
        save_rows(url)
        assert count_rows(server.url) == 200
        server.close()


def test_a_killed_keeper_takes_postgres_with_it_and_no_committed_row_is_lost(home: Path) -> None:
    with open_server(home, grace_s=0.0) as server:
        before = status_of(home)
        save_rows(server.url)
        os.kill(before.keeper_pid, signal.SIGKILL)
        wait_for(lambda: is_gone(before.postgres_pid))
        assert not server.is_alive()
        assert server_status(home) is None
        with open_server(home, grace_s=0.0) as again:
            assert again.url == server.url
            assert count_rows(again.url) == 200
            assert status_of(home).keeper_pid != before.keeper_pid


def test_a_killed_postgres_is_started_again_by_the_keeper(home: Path) -> None:
    with open_server(home, grace_s=0.0) as server:
        before = status_of(home)
        save_rows(server.url)
        for _ in range(2):
            killed = status_of(home).postgres_pid
            os.kill(killed, signal.SIGKILL)
            wait_for(lambda killed=killed: is_gone(killed))
            with open_server(home):  # waits until it takes connections again
                assert count_rows(server.url) == 200
                assert status_of(home).postgres_pid != killed
        assert status_of(home).keeper_pid == before.keeper_pid


def test_a_pinned_server_stays_until_it_is_stopped(home: Path) -> None:
    open_server(home, options=FAST, grace_s=0.0, pinned=True).close()
    wait_for(lambda: status_of(home).clients == ())
    before = status_of(home)
    assert before.pinned
    with open_server(home), pytest.raises(ServerInUse):
        stop_server(home)
    open_server(home, pinned=True).close()
    wait_for(lambda: status_of(home).clients == ())
    assert stop_server(home)
    assert is_gone(before.postgres_pid)
    assert not stop_server(home)


def test_many_that_start_at_once_share_one_keeper(home: Path) -> None:
    with other_client(home) as a, other_client(home) as b, other_client(home) as c, other_client(home) as d:
        pids = {json.loads(client.stdout.readline())["keeper_pid"] for client in (a, b, c, d)}
        assert len(pids) == 1
        assert Places(home).keeper_log.read_text().count("PostgreSQL is ready") == 1


def test_a_forked_child_neither_holds_nor_ends_the_membership(home: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from schema.embedded import open_server, server_status
home = Path(sys.argv[1])
server = open_server(home, options={"fsync": "off"}, grace_s=0.0)
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(writer)
    os.read(reader, 1)
    os._exit(0)
print(len(server_status(home).clients), server.is_alive())
server.close()
while server_status(home):
    pass
print("stopped while the child lives")
os.close(writer)
"""
    done = subprocess.run([sys.executable, "-c", script, str(home)], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout.splitlines() == ["1 True", "stopped while the child lives"], done.stderr


def test_what_killed_ones_left_is_cleared_away(home: Path) -> None:
    open_server(home, options=FAST, grace_s=0.0).close()
    places = Places(home)
    wait_for(lambda: not places.sockets.exists())
    places.sockets.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(places.keeper_socket))
    places.lock.write_text(json.dumps({"pid": 1, "socket": str(places.keeper_socket)}))
    (places.clusters / "new-half").mkdir()
    data = next(places.clusters.glob("[0-9]*"))
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n")  # its pid is somebody else's by now
    with open_server(home, options=FAST, grace_s=0.0) as server, connect(server.url) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
        assert not (places.clusters / "new-half").exists()


def test_a_private_home_with_a_long_and_odd_name_is_no_obstacle(tmp_path: Path) -> None:
    home = tmp_path / "private" / ("long, 'odd' näme %20 " * 6)
    home.mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)
    with open_server(home, options=FAST, grace_s=0.0) as server, connect(server.url) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    wait_for(lambda: not Places(home).sockets.exists())
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700


def test_data_of_another_major_version_is_refused_and_left_alone(home: Path) -> None:
    (home / "postgres" / "13").mkdir(parents=True)
    (home / "postgres" / "13" / "PG_VERSION").write_text("13\n")
    with pytest.raises(EmbeddedError, match=r"13 was made by PostgreSQL 13.*set CODELUPE_POSTGRES_BIN"):
        open_server(home)
    assert [path.name for path in (home / "postgres").iterdir() if path.is_dir()] == ["13"]


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"cannot write .*file.*set CODELUPE_HOME"):
        open_server(tmp_path / "file" / "home")


def test_a_keeper_that_cannot_be_started_is_started_when_it_can(home: Path) -> None:
    in_the_way = home / "logs" / "keeper.log"
    in_the_way.mkdir(parents=True)
    with pytest.raises(EmbeddedError, match=re.escape(str(in_the_way))):
        open_server(home, options=FAST)
    in_the_way.rmdir()

    # A lock that stayed locked would be taken for another keeper's, and waited for without end.
    lock_fd = try_lock(Places(home))
    assert lock_fd is not None
    os.close(lock_fd)
    with open_server(home, options=FAST) as server:
        assert server.is_alive()


def test_a_folder_without_postgres_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=rf"no program postgres in {tmp_path}: set CODELUPE_POSTGRES_BIN"):
        open_server(home, postgres_bin=tmp_path)


def test_a_socket_folder_of_others_is_refused(home: Path) -> None:
    sockets = Places(home).sockets
    sockets.mkdir(mode=0o755)
    with pytest.raises(EmbeddedError, match=r"is not a private folder"):
        open_server(home, options=FAST)
    sockets.rmdir()


def test_a_disk_that_fills_up_during_the_first_start_leaves_no_half_cluster(home: Path) -> None:
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n{CLIENT}"
    done = subprocess.run(
        [sys.executable, "-c", limited, str(home)], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert "EmbeddedError" in done.stderr
    assert str(home / "postgres") in done.stderr
    assert [path.name for path in (home / "postgres").iterdir()] == ["keeper.lock"]
    with open_server(home, options=FAST, grace_s=0.0) as server:
        assert server.is_alive()


@pytest.mark.system
def test_debians_postgres_15_works_too(home: Path) -> None:
    with open_server(home, postgres_bin=DEBIAN_15, grace_s=0.0) as server:
        status = status_of(home)
        save_rows(server.url)
        assert status.version.startswith("15.")
        os.kill(status.keeper_pid, signal.SIGKILL)
        wait_for(lambda: is_gone(status.postgres_pid))
        with open_server(home, postgres_bin=DEBIAN_15, grace_s=0.0) as again:
            assert count_rows(again.url) == 200


@pytest.mark.system
def test_root_where_user_namespaces_are_forbidden_is_told_what_to_do(home: Path) -> None:
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        forbid,
        "sh",
        sys.executable,
        "-c",
        CLIENT,
        str(home),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert "EmbeddedError: PostgreSQL does not run as root" in done.stderr
    assert "set CODELUPE_DATABASE_URL" in done.stderr
