"""JUnit XML: valid, with right counts and the reasons of failures."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from assay.report import to_junit


def suite_of(audit):
    suite = ElementTree.fromstring(to_junit(audit)).find("testsuite")
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(attribute)) == len(suite.findall(f"testcase/{tag}"))
    assert int(suite.get("tests")) == len(suite.findall("testcase"))
    return suite


def test_suite_has_a_case_per_finding_verdict_and_untested_variant(audit):
    suite = suite_of(audit)
    skipped = [variant for variant in audit.variants if variant.reason]
    assert len(suite.findall("testcase")) == len(audit.findings) + 1 + len(skipped)


@pytest.mark.parametrize(
    ("verdict", "outcome"), [("clean", None), ("backdoored", "failure"), ("inconclusive", "error")]
)
def test_verdict_case_has_the_outcome_of_the_verdict(make_audit, verdict, outcome):
    case = suite_of(make_audit(verdict)).find("testcase[@name='verdict']")
    assert [child.tag for child in case] == ([outcome] if outcome else [])


def test_properties_have_the_status(audit):
    properties = {item.get("name"): item.get("value") for item in suite_of(audit).iter("property")}
    assert properties["status"] == audit.status


def test_decisive_findings_fail(make_audit):
    suite = suite_of(make_audit("backdoored"))
    failed = [(case.get("classname"), case.get("name")) for case in suite if case.find("failure") is not None]
    assert failed == [("assay", "verdict"), ("assay.full", "neural-cleanse"), ("assay.int8", "neural-cleanse")]
    assert "target cat" in suite.find("testcase[@classname='assay.full']/failure").get("message")


def test_smallest_p_value_fails_even_above_the_false_alarm_rate(make_audit):
    base = make_audit("backdoored")
    findings = tuple(replace(item, p_value=0.2 if item.score == 6.8 else 0.5) for item in base.findings)
    assert suite_of(replace(base, findings=findings)).get("failures") == "3"


def test_abstained_finding_is_skipped_with_its_reason(make_audit):
    case = suite_of(make_audit()).find("testcase[@name='universal-shift']/skipped")
    assert "needs gradients" in case.get("message")


def test_hostile_text_gives_valid_xml(hostile):
    assert not {"\x00", "\x1b", "\u202e"} & set(to_junit(hostile))
    suite_of(hostile)


def test_tests_left_out_by_a_quick_audit_are_skipped(quick):
    suite = suite_of(quick)
    skipped = {(c.get("classname"), c.get("name")) for c in suite if c.find("skipped") is not None}
    expected = {("assay.full", "universal-shift"), ("assay.full", "graph"), ("assay.int8", "neural-cleanse")}
    assert skipped == expected
    assert suite.find("testcase[@name='verdict']/error") is not None
    properties = {item.get("name"): item.get("value") for item in suite.iter("property")}
    assert properties["quick"] == "true"


def test_full_audit_has_no_mark_of_a_quick_one(audit):
    properties = {item.get("name"): item.get("value") for item in suite_of(audit).iter("property")}
    assert properties["quick"] == "false"
