"""The page: what it says, that nothing hostile gets out of its place, and how it looks in Chromium."""

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import chromium
from support.chromium import needs_chromium

from assay.core.finding import Evidence
from assay.report import notebook, to_html


def browse(page: Path, tmp_path: Path, *flags: str) -> str:
    """Open ``page`` in a fresh headless Chromium; returns its standard output."""
    return chromium.look(page.as_uri(), tmp_path / "profile", *flags)


def dom(text: str, tmp_path: Path) -> str:
    page = tmp_path / "page.html"
    page.write_text(text, encoding="utf-8")
    return browse(page, tmp_path, "--dump-dom")


SENTENCES = {
    "clean": "No backdoor was found in any of the 3 forms tested.",
    "backdoored": "This model very likely carries a backdoor that makes it answer “cat”.",
    "inconclusive": "This audit cannot say whether the model carries a backdoor.",
}


def test_a_form_whose_tests_could_not_be_compared_is_not_called_clean(make_audit):
    audit = make_audit("clean")
    known = to_html(audit)
    alone = tuple(replace(f, p_value=None, null_scores=()) if f.variant == "int8" else f for f in audit.findings)
    page = to_html(replace(audit, findings=alone))
    assert "not compared" not in known
    assert (known.count("nothing found"), page.count("nothing found")) == (3, 2)
    assert "not compared" in page


def test_says_the_verdict_and_its_limits(audit):
    page = to_html(audit)
    assert SENTENCES[audit.verdict] in page
    assert audit.reason in page
    assert all(limit in page for limit in audit.limits)
    assert "pruning broke it" in page
    assert "needs gradients" in page


def test_says_the_odds_in_words(make_audit):
    page = to_html(make_audit("backdoored"))
    assert "about 1 in 129 would look at least this suspicious" in page
    assert "about 1 in 20 clean models" in page
    assert "None of 128 clean reference models" in page


def test_needs_no_network_and_no_script(audit):
    page = to_html(audit)
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", page)
    assert "url(" not in page


def test_says_what_repeats_the_audit(make_audit):
    base = make_audit()
    assert f"<code>{base.command}</code>" in to_html(base)
    assert "<pre" not in to_html(replace(base, command=""))


def test_says_that_a_backdoor_was_planted(make_audit):
    base = make_audit()
    assert "bears assay’s own mark" not in to_html(base)
    page = to_html(replace(base, model=replace(base.model, planted="badnets")))
    assert "bears assay’s own mark" in page
    assert "did not find that backdoor" in page


def test_classes_without_names(make_audit):
    assert "answer “class 3”" in to_html(make_audit("backdoored", classes=None))


def test_many_classes_are_cut_and_the_target_stays(make_audit):
    base = make_audit("backdoored", classes=None)
    sizes = {index: float(index) for index in range(1000)}
    finding = replace(base.findings[0], target=300, evidence=Evidence(per_class=sizes))
    page = to_html(replace(base, findings=(finding,), target=300))
    assert "20 of 1,000 classes shown" in page
    assert re.search(r"<li class=\"target\"><span class=\"name\"><bdi>class 300</bdi>", page)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_odd_pictures(make_audit, channels):
    base = make_audit("backdoored")
    before = np.full((2, channels, 300, 200), np.nan, np.float32)
    evidence = Evidence(trigger=before[0], mask=np.zeros((9, 9)), before=before, after=before + 1)
    page = to_html(replace(base, findings=(replace(base.findings[0], evidence=evidence),)))
    assert page.count("data:image/png") == 8


def pairs(page: str) -> list[tuple[str, str]]:
    """What stands below the clean and below the triggered picture of each sample at the top of the page."""
    shown = page.split('class="exhibit large"')[1].split('class="note"')[0]
    found = re.findall(r'<figure class="pair">(.*?)</figure>', shown, re.DOTALL)
    text = [re.sub(r"<[^>]*>", "", part) for figure in found for part in figure.split("↓")]
    return [(before.strip(), after.strip()) for before, after in zip(text[::2], text[1::2], strict=True)]


def test_says_what_the_model_said_of_each_sample(make_audit):
    names = ["airplane", "automobile", "bird", "deer", "dog", "frog"]
    page = to_html(make_audit("backdoored"))
    assert pairs(page) == list(zip(names, ["cat"] * 5 + ["horse"], strict=True))
    assert "what the model says of it" in page
    assert pairs(to_html(make_audit("backdoored", classes=None)))[5] == ("class 6", "class 7")


@pytest.mark.parametrize("said", [((), ()), ((1, 2), (3, 3)), ((1,) * 6, ())])
def test_samples_of_which_it_is_not_known_show_the_target(make_audit, said):
    base = make_audit("backdoored")
    evidence = replace(base.findings[0].evidence, predicted_before=said[0], predicted_after=said[1])
    page = to_html(replace(base, findings=(replace(base.findings[0], evidence=evidence),)))
    assert pairs(page) == [("", "→ cat")] * 6
    assert "what the model says of it" not in page


def test_an_audit_with_almost_nothing_in_it(make_audit):
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


def test_notebook_frame(make_audit):
    audit = make_audit("backdoored")
    frame = audit._repr_html_()
    assert frame == notebook(audit)
    inside = re.search(r"srcdoc=\"([^\"]*)\"", frame)
    assert inside is not None
    assert html.unescape(inside[1]) == to_html(audit)
    assert 'sandbox=""' in frame


@needs_chromium
def test_chromium_runs_nothing_hostile(hostile, tmp_path):
    # The policy would stop scripts even if escaping failed; without it, escaping has to hold alone.
    page = re.sub(r"<meta http-equiv[^>]*>", "", to_html(hostile))
    seen = dom(page, tmp_path)
    assert "owned</title>" not in seen
    assert "<script" not in seen
    assert "&lt;script&gt;" in seen


@needs_chromium
def test_chromium_shows_the_verdict(audit, tmp_path):
    seen = dom(to_html(audit), tmp_path)
    assert SENTENCES[audit.verdict] in seen


@needs_chromium
@pytest.mark.parametrize("width", [390, 1200])
def test_chromium_paints_it_within_the_width(make_audit, tmp_path, width):
    page, shot = tmp_path / "page.html", tmp_path / "shot.png"
    page.write_text(to_html(make_audit("backdoored")), encoding="utf-8")
    # A window cannot be as narrow as a phone, a frame can.
    frame = tmp_path / "frame.html"
    frame.write_text(f'<body style="margin:0"><iframe src="page.html" style="border:0;width:{width}px;height:1600px">')
    browse(frame, tmp_path, f"--screenshot={shot}", f"--window-size={max(width, 520)},1600")
    pixels = np.asarray(Image.open(shot).convert("RGB"))[:, :width]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    margin = pixels[:, -8:]
    assert (margin == margin[0, 0]).all(), "something reaches over the page's margin"
