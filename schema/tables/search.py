"""What the search looks through: the words of repositories and files, made by a job beside everything else."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import Base, one_of


class SearchEntry(Base):
    """A repository or a file as words. No foreign key: nothing of ingest waits for the search, or pays for it."""

    __tablename__ = "search_entries"
    kind: Mapped[str] = mapped_column(primary_key=True)  # repository | file
    item_id: Mapped[int] = mapped_column(primary_key=True)
    repository_id: Mapped[int]
    score: Mapped[float]
    # Every identifier; `name/word` where repository, path or what is defined is named so; what is filtered by.
    words: Mapped[str] = mapped_column(TSVECTOR)
    digest: Mapped[str | None]  # of what a repository's words were made of; files do not change
    __table_args__ = (
        sa.CheckConstraint(one_of("kind", ("repository", "file")), name="kind"),
        # search: what holds the words
        sa.Index("ix_search_entries_words", "words", postgresql_using="gin"),
        # search: a word that stands in very many, of which the best are shown
        sa.Index("ix_search_entries_score", "score", "kind", "item_id"),
        # remove_repositories: what is opted out
        sa.Index("ix_search_entries_repository_id", "repository_id"),
        # Words are needed when an entry is written, and not when it is found: those of an entry that is too long to
        # lie in one place lie elsewhere altogether, so that a common word reads a narrower table.
        {"postgresql_with": {"toast_tuple_target": 128}},
    )
