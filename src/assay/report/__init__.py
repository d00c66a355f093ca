"""Reports of one ``Audit``: an HTML page for people; JSON, SARIF and JUnit XML for machines."""

from __future__ import annotations

from assay.report.bundle import write
from assay.report.json_document import dumps, to_json
from assay.report.junit import to_junit
from assay.report.page import notebook, to_html
from assay.report.sarif import to_sarif

__all__ = ["dumps", "notebook", "to_html", "to_json", "to_junit", "to_sarif", "write"]
