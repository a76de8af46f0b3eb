"""The report of a run: one page that needs no network, with its numbers and figures.

report = write_report("runs/arc", test="test.h5")
print(report.headline)
"""

from dense_imb.report.live import LivePage, LiveWarning
from dense_imb.report.write import Report, write_report

__all__ = ["LivePage", "LiveWarning", "Report", "write_report"]
