"""Reports: tables, figures and one self-contained HTML page."""

from reid.report.types import DemoRun, RowResult

__all__ = ["DemoRun", "RowResult"]
