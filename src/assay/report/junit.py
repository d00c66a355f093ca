"""Audit as JUnit XML: one test case for each variant and detector, and one for the verdict."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite
from junitparser.junitparser import FinalResult

from assay.core.finding import Finding
from assay.core.result import Audit
from assay.io.display import escape_controls
from assay.report.formatting import class_name, format_number, format_p_value, format_percent
from assay.report.selection import decisive_findings, tests_not_run

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(audit: Audit) -> str:
    """Return one test suite.

    The decisive findings fail their test cases. An inconclusive verdict is an error.
    """
    decisive = {id(finding) for finding in decisive_findings(audit)}
    suite = TestSuite("assay")
    properties = {
        "model": audit.model.path,
        "digest": audit.model.digest,
        "planted": audit.model.planted or "",
        "verdict": audit.verdict,
        "status": audit.status,
        "p_value": format_p_value(audit.p_value),
        "false_alarm_rate": format_percent(audit.false_alarm_rate),
        "quick": str(audit.quick is not None).lower(),
        "seed": str(audit.seed),
        "version": audit.version,
    }
    for name, value in properties.items():
        suite.add_property(name, _xml_text(value))
    findings = [_finding_case(audit, finding, fails=id(finding) in decisive) for finding in audit.findings]
    skipped = [
        _case(variant.name, "variant", 0.0, Skipped(_xml_text(variant.reason)))
        for variant in audit.variants
        if variant.reason
    ]
    skipped += [
        _case(variant, detector, 0.0, Skipped("left out by a quick audit"))
        for variant, _, detector in (test.partition("/") for test in tests_not_run(audit))
    ]
    suite.add_testcases([_verdict_case(audit), *findings, *skipped])
    suite.time = _seconds(audit.seconds)  # instead of the sum over the test cases
    root = JUnitXml()
    root.add_testsuite(suite)
    tree = ElementTree.fromstring(root.tostring())
    ElementTree.indent(tree)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(tree, encoding="unicode") + "\n"


def _verdict_case(audit: Audit) -> TestCase:
    # Most CI systems count a skipped test as green. An inconclusive audit is therefore an error: a build must not pass
    # because nothing could be tested.
    kind = {"fail": Failure, "unknown": Error}.get(audit.status)
    result = None if kind is None else kind(_xml_text(audit.reason), audit.verdict)
    return _case("", "verdict", audit.seconds, result)


def _finding_case(audit: Audit, finding: Finding, *, fails: bool) -> TestCase:
    result: FinalResult | None = None
    if finding.outcome.status == "abstained":
        result = Skipped(_xml_text(finding.reason))
    elif finding.outcome.status == "failed":
        result = Error(_xml_text(finding.reason), "failed")
    elif fails:
        text = (
            f"score {format_number(finding.score)}, p-value {format_p_value(finding.p_value)}, "
            f"target {class_name(audit, finding.target)}"
        )
        result = Failure(_xml_text(text), _xml_text(finding.technique))
    return _case(finding.variant, finding.detector, finding.seconds, result)


def _case(variant: str, name: str, seconds: float, result: FinalResult | None) -> TestCase:
    case = TestCase(_xml_text(name), _xml_text(f"assay.{variant}" if variant else "assay"), _seconds(seconds))
    if result is not None:
        case.result = [result]
    return case


def _seconds(value: float) -> float:
    return round(value, 3) if math.isfinite(value) else 0.0


def _xml_text(text: str) -> str:
    """Return ``text`` with unsafe characters as escapes, and without those that XML 1.0 forbids."""
    return _NOT_XML.sub("", escape_controls(text))
