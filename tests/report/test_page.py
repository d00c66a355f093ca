"""HTML page of an audit: content, escaping of hostile text, and display in Chromium."""

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import chromium
from support.chromium import needs_chromium

import assay
from assay.core.finding import Evidence
from assay.report import notebook, to_html


def open_in_chromium(page: Path, tmp_path: Path, *flags: str) -> str:
    """Open ``page`` in a new headless Chromium and return its standard output."""
    return chromium.look(page.as_uri(), tmp_path / "profile", *flags)


def dom_of(text: str, tmp_path: Path) -> str:
    page = tmp_path / "page.html"
    page.write_text(text, encoding="utf-8")
    return open_in_chromium(page, tmp_path, "--dump-dom")


SENTENCES = {
    "clean": "No backdoor found in the 3 tested variants.",
    "backdoored": "This model very likely has a backdoor. Target class: “cat”.",
    "inconclusive": "The audit could not decide whether the model has a backdoor.",
}


def test_variant_without_p_values_is_not_called_clean(make_audit):
    audit = make_audit("clean")
    known = to_html(audit)
    alone = tuple(replace(f, p_value=None, null_scores=()) if f.variant == "int8" else f for f in audit.findings)
    page = to_html(replace(audit, findings=alone))
    assert "not compared" not in known
    assert (known.count("nothing found"), page.count("nothing found")) == (3, 2)
    assert "not compared" in page


def test_page_shows_the_verdict_and_its_limits(audit):
    page = to_html(audit)
    assert SENTENCES[audit.verdict] in page
    assert audit.reason in page
    assert all(limit in page for limit in audit.limits)
    assert "pruning broke the model" in page
    assert "needs gradients" in page


def test_page_shows_p_value_and_false_alarm_rate_in_words(make_audit):
    page = to_html(make_audit("backdoored"))
    assert "About 1 in 129 clean models look at least this suspicious" in page
    assert "about 1 in 20 clean models" in page
    assert "None of 128 clean reference models" in page


def test_page_of_a_quick_audit_states_its_extent(quick):
    page = to_html(quick)
    assert "The quick audit found no backdoor. It cannot show that there is none." in page
    assert "This quick audit, with its 2 of 5 tests, raises a false alarm on about 1 in 20 clean models" in page
    assert "quick audit: 2 of 5 tests" in page
    assert "Not looked at: x." in page


def test_page_has_no_script_and_no_external_address(audit):
    page = to_html(audit)
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", page)
    assert "url(" not in page


def test_page_shows_the_command_of_the_audit(make_audit):
    base = make_audit()
    assert f"<code>{base.command}</code>" in to_html(base)
    assert "<pre" not in to_html(replace(base, command=""))


def test_page_of_a_marked_model_shows_the_mark(make_audit):
    base = make_audit()
    assert "has a mark of assay" not in to_html(base)
    page = to_html(replace(base, model=replace(base.model, planted="badnets")))
    assert "has a mark of assay" in page
    assert "did not find that backdoor" in page


def test_classes_without_names_are_numbered(make_audit):
    assert "Target class: “class 3”" in to_html(make_audit("backdoored", classes=None))


def test_many_classes_are_limited_and_include_the_target(make_audit):
    base = make_audit("backdoored", classes=None)
    sizes = {index: float(index) for index in range(1000)}
    finding = replace(base.findings[0], target=300, evidence=Evidence(per_class=sizes))
    page = to_html(replace(base, findings=(finding,), target=300))
    assert "20 of 1,000 classes shown" in page
    assert re.search(r"<li class=\"target\"><span class=\"name\"><bdi>class 300</bdi>", page)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_unusual_shape_are_shown(make_audit, channels):
    base = make_audit("backdoored")
    before = np.full((2, channels, 300, 200), np.nan, np.float32)
    evidence = Evidence(trigger=before[0], mask=np.zeros((9, 9)), before=before, after=before + 1)
    page = to_html(replace(base, findings=(replace(base.findings[0], evidence=evidence),)))
    assert page.count("data:image/png") == 8


def captions(page: str) -> list[tuple[str, str]]:
    """Return the captions of the clean and the triggered image of each sample at the top of the page."""
    shown = page.split('class="exhibit large"')[1].split('class="note"')[0]
    found = re.findall(r'<figure class="pair">(.*?)</figure>', shown, re.DOTALL)
    text = [re.sub(r"<[^>]*>", "", part) for figure in found for part in figure.split("↓")]
    return [(before.strip(), after.strip()) for before, after in zip(text[::2], text[1::2], strict=True)]


def test_samples_show_the_predicted_classes(make_audit):
    names = ["airplane", "automobile", "bird", "deer", "dog", "frog"]
    page = to_html(make_audit("backdoored"))
    assert captions(page) == list(zip(names, ["cat"] * 5 + ["horse"], strict=True))
    assert "each with the predicted class" in page
    assert captions(to_html(make_audit("backdoored", classes=None)))[5] == ("class 6", "class 7")


@pytest.mark.parametrize("predictions", [((), ()), ((1, 2), (3, 3)), ((1,) * 6, ())])
def test_samples_without_predictions_show_the_target(make_audit, predictions):
    base = make_audit("backdoored")
    evidence = replace(base.findings[0].evidence, predicted_before=predictions[0], predicted_after=predictions[1])
    page = to_html(replace(base, findings=(replace(base.findings[0], evidence=evidence),)))
    assert captions(page) == [("", "→ cat")] * 6
    assert "each with the predicted class" not in page


def test_page_of_an_empty_audit_shows_the_verdict(make_audit):
    base = make_audit("inconclusive")
    bare = replace(base, findings=(), variants=(), limits=(), data_samples=0, reason="")
    assert SENTENCES["inconclusive"] in to_html(bare)


def test_hostile_text_is_escaped(hostile):
    page = to_html(hostile)
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x00" not in page
    assert "x" * 1000 not in page
    page.encode("utf-8")


def test_notebook_frame_contains_the_page(make_audit):
    audit = make_audit("backdoored")
    assert isinstance(audit, assay.Audit)  # the first use of the name registers the view
    frame = audit._repr_html_()
    assert frame == notebook(audit)
    inside = re.search(r"srcdoc=\"([^\"]*)\"", frame)
    assert inside is not None
    assert html.unescape(inside[1]) == to_html(audit)
    assert 'sandbox=""' in frame


@needs_chromium
def test_chromium_runs_no_hostile_script(hostile, tmp_path):
    # The content policy stops scripts even if escaping fails. This test removes it, to test the escaping alone.
    page = re.sub(r"<meta http-equiv[^>]*>", "", to_html(hostile))
    seen = dom_of(page, tmp_path)
    assert "owned</title>" not in seen
    assert "<script" not in seen
    assert "&lt;script&gt;" in seen


@needs_chromium
def test_chromium_shows_the_verdict(audit, tmp_path):
    seen = dom_of(to_html(audit), tmp_path)
    assert SENTENCES[audit.verdict] in seen


@needs_chromium
@pytest.mark.parametrize("width", [390, 1200])
def test_chromium_shows_no_overflow(make_audit, tmp_path, width):
    page, shot = tmp_path / "page.html", tmp_path / "shot.png"
    page.write_text(to_html(make_audit("backdoored")), encoding="utf-8")
    # A Chromium window cannot be as narrow as a phone. A frame can.
    frame = tmp_path / "frame.html"
    frame.write_text(f'<body style="margin:0"><iframe src="page.html" style="border:0;width:{width}px;height:1600px">')
    open_in_chromium(frame, tmp_path, f"--screenshot={shot}", f"--window-size={max(width, 520)},1600")
    pixels = np.asarray(Image.open(shot).convert("RGB"))[:, :width]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    margin = pixels[:, -8:]
    assert (margin == margin[0, 0]).all(), "the content overflows the page"
