"""What a repository amounts to: figures over its present files."""

from dataclasses import dataclass

import sqlalchemy as sa

from schema.tables import ProcessedFile, RefusedFile

# A row with one of these is not the path's present content.
_PAST = ("superseded", "vanished")


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over the present files of one repository, duplicates included; mean_score is 0 to 100."""

    num_files: int
    num_lines: int
    mean_score: float | None


def fetch_figures(conn: sa.Connection, repository_id: int) -> Figures:
    """Fetch the figures of one repository."""
    present = sa.or_(ProcessedFile.excluded_reason.is_(None), ProcessedFile.excluded_reason.not_in(_PAST))
    refused = sa.select(RefusedFile.file_path).where(
        RefusedFile.repository_id == repository_id, RefusedFile.file_path == ProcessedFile.file_path
    )
    figures = sa.select(
        sa.func.count(),
        sa.cast(sa.func.coalesce(sa.func.sum(ProcessedFile.num_lines), 0), sa.BigInteger),
        sa.func.avg(ProcessedFile.quality_score),
    ).where(ProcessedFile.repository_id == repository_id, present, ~refused.exists())
    num_files, num_lines, mean_score = conn.execute(figures).one()
    return Figures(num_files=num_files, num_lines=num_lines, mean_score=mean_score)
