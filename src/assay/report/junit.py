"""The audit as JUnit XML: a test case for each variant and detector, and one for the verdict."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from assay.core.finding import Finding
from assay.core.result import Audit, VariantResult
from assay.report import formatting, selection

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(audit: Audit) -> str:
    """One test suite. A finding that the verdict rests on fails its test; an inconclusive verdict is an error."""
    suite = ElementTree.Element("testsuite", name="assay", time=_seconds(audit.seconds))
    _properties(suite, audit)
    _verdict(suite, audit)
    blamed = {id(finding) for finding in selection.decisive_findings(audit)}
    for finding in audit.findings:
        _case(suite, audit, finding, fails=id(finding) in blamed)
    for variant in audit.variants:
        if variant.skipped:
            _skipped(suite, variant)
    for outcome, count in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(outcome, str(len(suite.findall(f"testcase/{count}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _properties(suite: ElementTree.Element, audit: Audit) -> None:
    group = ElementTree.SubElement(suite, "properties")
    values = {
        "model": audit.model.path,
        "digest": audit.model.digest,
        "planted": audit.model.planted or "",
        "verdict": audit.verdict,
        "p_value": formatting.format_p_value(audit.p_value),
        "false_alarm_rate": formatting.format_percent(audit.false_alarm_rate),
        "seed": str(audit.seed),
        "version": audit.version,
    }
    for name, value in values.items():
        ElementTree.SubElement(group, "property", name=name, value=_xml(value))


def _verdict(suite: ElementTree.Element, audit: Audit) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname="assay", name="verdict", time=_seconds(audit.seconds))
    # Not "skipped" where it is inconclusive: a build must not turn green because nothing could be tested.
    outcome = {"backdoored": "failure", "inconclusive": "error"}.get(audit.verdict)
    if outcome:
        ElementTree.SubElement(case, outcome, type=audit.verdict, message=_xml(audit.reason))


def _case(suite: ElementTree.Element, audit: Audit, finding: Finding, *, fails: bool) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=_xml(f"assay.{finding.variant}"),
        name=_xml(finding.detector),
        time=_seconds(finding.seconds),
    )
    if finding.status == "abstained":
        ElementTree.SubElement(case, "skipped", message=_xml(finding.reason))
    elif finding.status == "failed":
        ElementTree.SubElement(case, "error", type="failed", message=_xml(finding.reason))
    elif fails:
        text = (
            f"score {formatting.format_number(finding.score)}, p-value {formatting.format_p_value(finding.p_value)}, "
            f"target {formatting.class_name(audit, finding.target)}"
        )
        ElementTree.SubElement(case, "failure", type=_xml(finding.technique), message=_xml(text))


def _skipped(suite: ElementTree.Element, variant: VariantResult) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_xml(f"assay.{variant.name}"), name="variant", time="0")
    ElementTree.SubElement(case, "skipped", message=_xml(variant.skipped))


def _seconds(value: float) -> str:
    return f"{value if math.isfinite(value) else 0:.3f}"


def _xml(text: str) -> str:
    """``text`` without the characters that XML 1.0 cannot hold even when escaped."""
    return _NOT_XML.sub("", text)
