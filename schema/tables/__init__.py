"""The tables. Alembic's migrations must build exactly these (tests/schema/test_migrations.py proves it).

Every index carries a comment that names the query it is for. Times are the database's clock. Text that comes from a
repository is data: nothing here is ever formatted into SQL.
"""

from schema.tables.base import CLOSED_STATES, CONSUMING_ROLES, OPEN_STATES, ROLES, SPLITS, Base
from schema.tables.crawl import CrawlPage, CrawlPass, CrawlWindow
from schema.tables.files import NearDupBand, ProcessedFile, RefusedFile
from schema.tables.jobs import ApiCall, Job
from schema.tables.lines import Decision, Line, Promotion, QueueItem, SettingChange, Version
from schema.tables.runs import Evaluation, RunItem, TrainingRun
from schema.tables.search import SearchEntry
from schema.tables.sources import OptOut, ReleaseTag, Repository
from schema.tables.work import Chore, Lease

__all__ = [
    "CLOSED_STATES",
    "CONSUMING_ROLES",
    "OPEN_STATES",
    "ROLES",
    "SPLITS",
    "ApiCall",
    "Base",
    "Chore",
    "CrawlPage",
    "CrawlPass",
    "CrawlWindow",
    "Decision",
    "Evaluation",
    "Job",
    "Lease",
    "Line",
    "NearDupBand",
    "OptOut",
    "ProcessedFile",
    "Promotion",
    "QueueItem",
    "RefusedFile",
    "ReleaseTag",
    "Repository",
    "RunItem",
    "SearchEntry",
    "SettingChange",
    "TrainingRun",
    "Version",
]
