import os
import socket
import struct
import threading

import psycopg
import pytest
import sqlalchemy as sa

from schema.database import DatabaseRefused, DatabaseUnavailable, create_engine, is_outage, outlast, reach, wait_for
from tests.proxy import Proxy


def test_a_connection_has_the_settings_asked_for(database_url):
    engine = create_engine(database_url, application_name="somebody", statement_timeout_s=7)
    with engine.connect() as conn:
        settings = ("application_name", "statement_timeout", "TimeZone", "lock_timeout")
        found = [conn.execute(sa.text(f"SHOW {name}")).scalar_one() for name in settings]
    engine.dispose()
    assert found == ["somebody", "7s", "UTC", "30s"]


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_both_spellings_of_a_url_work(scheme, database_url):
    url = sa.make_url(database_url).set(drivername=scheme).render_as_string(hide_password=False)
    engine = create_engine(url, application_name="tests")
    with engine.connect() as conn:
        assert conn.execute(sa.text("SELECT 1")).scalar_one() == 1
    engine.dispose()


def test_a_server_that_is_not_there_is_an_outage_and_waiting_for_it_ends(tmp_path):
    engine = create_engine(f"postgresql://postgres@/codelupe?host={tmp_path}", application_name="tests")
    with pytest.raises(DatabaseUnavailable, match=str(tmp_path)) as caught:
        wait_for(engine, timeout_s=0)
    assert is_outage(caught.value)
    assert is_outage(caught.value.__cause__)


def test_no_password_is_said_wherever_in_the_url_it_stands(tmp_path):
    url = f"postgresql://somebody:s3cret@/codelupe?host={tmp_path}&password=s3cret&sslpassword=s3cret"
    engine = create_engine(url, application_name="tests")
    with pytest.raises(DatabaseUnavailable, match="somebody") as caught:
        wait_for(engine, timeout_s=0)
    assert "s3cret" not in str(caught.value)


def test_a_peer_that_owes_an_answer_is_given_up_within_a_minute(database_url):
    with Proxy(database_url) as proxy:
        engine = create_engine(proxy.url, application_name="tests")
        with engine.connect() as conn, socket.socket(fileno=os.dup(conn.connection.fileno())) as own:
            assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        engine.dispose()


def test_waiting_returns_when_the_database_answers(engine):
    assert wait_for(engine, timeout_s=10) is None


def test_a_connection_that_was_cut_is_an_outage(engine):
    with engine.connect() as victim, engine.connect() as killer:
        pid = victim.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        killer.execute(sa.text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        with pytest.raises(sa.exc.DBAPIError) as caught:
            victim.execute(sa.text("SELECT 1"))
        assert is_outage(caught.value)
        victim.invalidate()


@pytest.mark.parametrize(
    "statement",
    ["SELECT 1 / 0", "SELECT nothing", "SET LOCAL statement_timeout = 1; SELECT pg_sleep(9)"],
    ids=["division", "no such column", "cancelled by its timeout"],
)
def test_a_statement_that_fails_is_no_outage(statement, engine):
    with engine.connect() as conn, pytest.raises(sa.exc.DBAPIError) as caught:
        conn.execute(sa.text(statement))
    assert not is_outage(caught.value)


def test_a_lock_that_is_not_granted_is_no_outage(engine):
    with engine.connect() as holder, engine.connect() as waiter:
        holder.execute(sa.text("SELECT pg_advisory_xact_lock(1)"))
        waiter.execute(sa.text("SET LOCAL lock_timeout = '1ms'"))
        with pytest.raises(sa.exc.DBAPIError) as caught:
            waiter.execute(sa.text("SELECT pg_advisory_xact_lock(1)"))
    assert isinstance(caught.value.orig, psycopg.errors.LockNotAvailable)
    assert not is_outage(caught.value)


@pytest.mark.parametrize("error", [ValueError("x"), sa.exc.ArgumentError("x")])
def test_another_error_is_no_outage(error):
    assert not is_outage(error)


def test_a_pool_without_a_free_connection_passes_like_an_outage(database_url):
    engine = sa.create_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with engine.connect(), pytest.raises(sa.exc.TimeoutError) as refused:
        engine.connect()
    engine.dispose()

    assert is_outage(refused.value)


@pytest.mark.parametrize(
    "error",
    [psycopg.OperationalError("refused"), psycopg.errors.LockNotAvailable("lock timeout")],
    ids=["away", "locked"],
)
def test_a_start_is_done_again_until_the_database_lets_it(error):
    fails, told = [sa.exc.DBAPIError("SELECT 1", {}, error)], []

    def step():
        if fails:
            raise fails.pop()

    assert outlast(step, stop=threading.Event(), away=told.append)
    assert told == [str(error)]


def test_a_start_that_is_asked_to_stop_is_not_done_again():
    stop, told = threading.Event(), []

    def step():
        stop.set()
        raise DatabaseUnavailable("refused")

    assert not outlast(step, stop=stop, away=told.append)
    assert told == ["refused"]


def test_an_error_of_a_start_that_is_no_outage_is_raised():
    def step():
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        outlast(step, stop=threading.Event(), away=print)


def test_a_server_that_lets_nobody_in_is_told_from_one_that_is_away(database_url):
    url = sa.make_url(database_url).set(database="nowhere", password="hidden")
    engine = create_engine(url.render_as_string(hide_password=False), application_name="tests")
    with pytest.raises(DatabaseRefused, match="correct CODELUPE_DATABASE_URL") as refused:
        reach(engine)
    engine.dispose()
    assert "hidden" not in str(refused.value)
    assert not is_outage(refused.value)


@pytest.fixture
def refusing_server():
    """Call it with what a PostgreSQL answers to whoever connects, for its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def start(code, words):
        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                fields = f"SFATAL\0VFATAL\0C{code}\0M{words}\0\0".encode()
                connection.sendall(b"E" + struct.pack("!i", 4 + len(fields)) + fields)

        threads.append(threading.Thread(target=answer))
        threads[0].start()
        return f"postgresql://alice:hidden@127.0.0.1:{listener.getsockname()[1]}/codelupe?sslmode=disable"

    yield start
    for thread in threads:
        thread.join()
    listener.close()


@pytest.mark.parametrize(
    ("code", "words", "is_final"),
    [
        ("28P01", 'password authentication failed for user "alice"', True),
        ("28000", 'no pg_hba.conf entry for host "10.0.0.1", user "alice", database "codelupe", no encryption', True),
        ("28000", 'role "alice" does not exist', True),
        ("3D000", 'database "codelupe" does not exist', True),
        ("57P03", "the database system is starting up", False),
        ("57P03", "the database system is in recovery mode", False),
        ("53300", "sorry, too many clients already", False),
    ],
)
def test_what_a_server_says_to_who_connects_is_an_outage_or_final(code, words, is_final, refusing_server):
    engine = create_engine(refusing_server(code, words), application_name="tests")
    with pytest.raises((DatabaseRefused, sa.exc.OperationalError), match="FATAL") as caught:
        reach(engine)
    engine.dispose()
    assert isinstance(caught.value, DatabaseRefused) == is_final
    assert is_outage(caught.value) != is_final
