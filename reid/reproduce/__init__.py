"""The paper's tables as rows of configurations, trained and evaluated one after the other."""

from reid.reproduce.rows import TABLES, Row
from reid.reproduce.runner import RowOutcome, run_rows
from reid.reproduce.tables import reproduce

__all__ = ["TABLES", "Row", "RowOutcome", "reproduce", "run_rows"]
