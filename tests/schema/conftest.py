"""One database for the tests that need one connection only: each runs in a transaction that is rolled back."""

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from schema.database import create_engine


@pytest.fixture(scope="session")
def shared_engine(empty_database: Callable[..., str], migrated_template: str) -> Iterator[sa.Engine]:
    engine = create_engine(empty_database(migrated_template), application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture
def conn(shared_engine: sa.Engine) -> Iterator[sa.Connection]:
    with shared_engine.connect() as conn:
        yield conn
        conn.rollback()
