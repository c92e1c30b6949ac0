"""Reports: tables, figures and one self-contained HTML page."""

from reid.report.build import build_report
from reid.report.evaluation import Origin, evaluation_report
from reid.report.from_files import report_files
from reid.report.overlays import overlay_sheet
from reid.report.ranked import ranked_list_sheet
from reid.report.tables import write_table
from reid.report.types import DemoRun, RowResult

__all__ = [
    "DemoRun",
    "Origin",
    "RowResult",
    "build_report",
    "evaluation_report",
    "overlay_sheet",
    "ranked_list_sheet",
    "report_files",
    "write_table",
]
