"""The leaderboard: complete files, harmless hostile text, and its behavior in Chromium."""

import base64
import csv
import hashlib
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support import chromium
from support.chromium import needs_chromium

from assay.bench import statistics
from assay.bench.cells import Cell, MatrixEntry
from assay.bench.leaderboard import MatrixSummary, write_index, write_leaderboard
from assay.bench.leaderboard import details as details_module
from assay.bench.leaderboard.chains import order_chains
from assay.bench.leaderboard.details import details
from assay.bench.leaderboard.page import script_json
from assay.bench.leaderboard.tables import aggregated_csv, records_csv, records_parquet
from assay.bench.records import Record
from assay.bench.spec import ATTACK_STEP, Method, TaskSpec, ValidityCriteria
from assay.bench.statistics import AttackRow
from assay.core.errors import UnusableInput
from assay.io.images import data_uri, to_image
from assay.io.jsonable import encodable
from assay.nn.metrics import Rate

TASK = TaskSpec("signs", "synth:signs", "resnet20-cifar")
CRITERIA = ValidityCriteria()
PLACE = ATTACK_STEP
BADNETS, NONE, TUNE = Method("badnets"), Method("none"), Method("fine-tune", ("epochs=2",))
STEPS = {"planted": (PLACE,), "tuned": (PLACE, "fine-tune"), "tuned, int8": (PLACE, "fine-tune", "int8")}
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">&amp;\u2028\u202e'\x00\udcff"
FILES = (
    *("index.html", "records.csv", "records.json", "records.parquet"),
    *("attacks.csv", "detectors.csv", "mitigations.csv"),
)


def entry(kind="measure", *, attack="badnets", chain="planted", seed=0, method="", step=BADNETS) -> MatrixEntry:
    place = NONE if attack == "none" else step
    steps = tuple(place if name == PLACE else TUNE if name == "fine-tune" else Method(name) for name in STEPS[chain])
    repair = (TUNE,) if kind == "mitigate" else ()
    cell = Cell(kind, TASK, steps, seed, method=method, repair=repair, valid=CRITERIA, samples=256 * (kind == "detect"))
    return MatrixEntry(cell, TASK.name, attack, chain)


def record(of: MatrixEntry, state="done", result=None, error=None) -> Record:
    return Record(
        of.cell.key, of.cell.kind, {}, state, result, error, 12.5 if result else None, "host:1" if result else None
    )


def rate(value: float) -> dict:
    return Rate(round(1000 * value), 1000).to_json()


def rates(asr: float) -> dict:
    why = "" if asr >= CRITERIA.asr else f"ASR {asr:.3f} is below 0.8"
    return {
        "schema": "assay.metrics/1",
        "clean_accuracy": rate(0.9),
        "attack_success": rate(asr),
        "robust_accuracy": rate((1 - asr) / 2),
        "control": rate(0.01),
        "valid": not why,
        "why_invalid": why,
    }


def finding(score: float | None, *, backdoored: bool, **more) -> dict:
    abstained = (
        {"status": "abstained", "reason": "needs gradients"} if score is None else {"status": "ok", "reason": ""}
    )
    return {**abstained, "score": score, "target": 3, "planted_target": 3 if backdoored else None, **more}


def trigger(seed: int) -> str:
    return data_uri(to_image(np.random.default_rng(seed).random((3, 8, 8))))


def matrix() -> list[tuple[MatrixEntry, Record]]:
    """Return two attacks, clean models, three chains, two detectors and a mitigation, with every state."""
    found = []

    def add(of, state="done", result=None, error=None):
        found.append((of, record(of, state, result, error)))

    for seed in range(3):
        add(entry(attack="none", seed=seed), result={"clean_accuracy": rate(0.91)})
        for method, score in (("neural-cleanse", 0.1 * seed), ("strip", None)):
            add(entry("detect", attack="none", method=method, seed=seed), result=finding(score, backdoored=False))
        add(entry(seed=seed), result=rates(0.99))
        shown = {"numbers": {"steps": 150}, "pictures": {"trigger": trigger(seed)}}
        add(entry("detect", method="neural-cleanse", seed=seed), result=finding(2.0 + seed, backdoored=True, **shown))
        add(entry("detect", method="strip", seed=seed), result=finding(None, backdoored=True))
        add(entry("mitigate", method="tune", seed=seed), result={**rates(0.2), "repair_seconds": 3.0})
        add(entry(attack="blended", seed=seed, step=Method("blended")), "invalid", rates(0.4))
    add(
        entry("detect", attack="blended", method="strip", step=Method("blended")),
        "invalid",
        error="what it needs ended as invalid",
    )
    add(entry(chain="tuned"), "invalid", rates(0.5))
    add(entry(chain="tuned, int8"), "failed", error="RuntimeError: expected 3 channels, got 1")
    add(entry(chain="tuned, int8", seed=1), "waiting")
    return found


def write(found, folder: Path, title="Signs") -> dict[str, Path]:
    return write_leaderboard(found, folder / "board", title=title, specs={"my spec": "name: my spec"})


def block(page: str, name: str):
    """Return the content of one of the page's JSON elements."""
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)[1])


def test_every_file_has_every_record(tmp_path):
    found = matrix()
    files = write(found, tmp_path)
    assert tuple(files) == (*FILES, "spec-1-my-spec.yaml")
    keys = [record.key for _, record in found]
    assert [row["key"] for row in csv.DictReader(io.StringIO(files["records.csv"].read_text()))] == keys
    assert [row["key"] for row in json.loads(files["records.json"].read_text())["records"]] == keys
    assert pq.read_table(files["records.parquet"])["key"].to_pylist() == keys
    page = files["index.html"].read_text()
    assert [row["id"] for row in block(page, "board")["records"]] == [key[:12] for key in keys]
    assert len(block(page, "details")) == len(keys)


def test_repeated_write_gives_equal_files(tmp_path):
    first = {name: path.read_bytes() for name, path in write(matrix(), tmp_path).items()}
    assert {name: path.read_bytes() for name, path in write(matrix(), tmp_path).items()} == first


def test_nothing_is_written_if_folder_is_a_file(tmp_path):
    (tmp_path / "board").write_text("a file")
    with pytest.raises(UnusableInput, match="board"):
        write(matrix(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["board"]


def test_empty_matrix_has_all_files(tmp_path):
    files = write([], tmp_path)
    assert "clean_accuracy_low" in files["attacks.csv"].read_text()
    assert pq.read_table(files["records.parquet"]).num_rows == 0


def test_parquet_columns_have_types():
    table = pq.read_table(io.BytesIO(records_parquet(matrix())))
    types = {field.name: str(field.type) for field in table.schema}
    assert types["seed"] == types["limit"] == "int64"
    assert types["clean_accuracy_low"] == types["score"] == types["seconds"] == "double"
    assert types["valid"] == "bool"
    assert "pictures" not in types
    assert table["steps"][-1].as_py() == "badnets > fine-tune (epochs=2) > int8"


def test_results_of_mixed_types_are_written(tmp_path):
    of = entry("detect", method="strip")
    odd = [
        {"score": float("nan"), "mixed": 1, "error": "of the result"},
        {"score": 1.0, "mixed": "text\udcff", "deep": {"x": [1]}},
    ]
    found = [(replace(of, attack=str(index)), record(of, result=result)) for index, result in enumerate(odd)]
    table = pq.read_table(io.BytesIO(records_parquet(found))).to_pylist()
    assert [row["mixed"] for row in table] == ["1", '"text\\\\udcff"']
    assert table[0]["result_error"] == "of the result"
    assert table[1]["deep"] == '{"x": [1]}'
    scored = [
        (where, replace(record, result={**record.result, "status": "ok", "target": None, "planted_target": 1}))
        for where, record in found
    ]
    files = write(scored, tmp_path)
    assert json.loads(files["records.json"].read_text())["records"][0]["result"]["score"] == "nan"
    assert len(block(files["index.html"].read_text(), "board")["records"]) == 2


def test_csv_has_no_spreadsheet_formulas():
    of = replace(entry(), attack="=HYPERLINK(1)")
    (row,) = csv.DictReader(io.StringIO(records_csv([(of, record(of, "failed", error="@SUM(A1)"))]).decode()))
    assert row["attack"] == "'=HYPERLINK(1)"
    assert row["error"] == "'@SUM(A1)"


def test_csv_row_without_estimates_keeps_its_columns():
    rows = statistics.attack_rows(matrix())
    lines = aggregated_csv(AttackRow, rows).decode().splitlines()
    assert len({len(line.split(",")) for line in lines if '"' not in line}) == 1
    assert lines[0].split(",")[8:11] == ["clean_accuracy", "clean_accuracy_low", "clean_accuracy_high"]


def test_page_counts_every_state(tmp_path):
    found = matrix()
    page = write(found, tmp_path)["index.html"].read_text()
    shown = dict(re.findall(r"swatch (\w+)\"></i>\w+</dt><dd><strong>([\d,]+)", page))
    assert shown == {"done": str(len(found) - 7), "invalid": "5", "failed": "1", "missing": "1"}
    assert "ASR of at least 80 %, 30 points above the control, at most 10 points of clean accuracy lost" in page


def test_invalid_attacks_are_shown_but_not_averaged(tmp_path):
    rows = block(write(matrix(), tmp_path)["index.html"].read_text(), "board")
    blended = next(row for row in rows["attacks"] if row["attack"] == "blended")
    assert blended["asr"] is None
    assert blended["states"] == {"invalid": 3}
    assert blended["why"] == "ASR 0.400 is below 0.8"
    # The table of chains also counts invalid attacks.
    tuned = next(row for row in rows["chains"] if row["chain"] == "tuned")
    assert tuned["asr"][0] == 0.5
    assert tuned["change"] == pytest.approx(-0.49)
    assert tuned["parent"] == "planted"


def test_chains_follow_their_base():
    entries = [entry(chain=name) for name in ("tuned, int8", "tuned", "planted")]
    other = replace(entries[0], chain="first tuned", cell=replace(entries[0].cell, steps=(TUNE, BADNETS)))
    chains = order_chains([*entries, other])
    assert [(chain.name, chain.parent, chain.depth) for chain in chains] == [
        ("planted", None, 0),
        ("tuned", "planted", 1),
        ("tuned, int8", "tuned", 2),
        ("first tuned", None, 0),
    ]


def test_chains_with_equal_steps_share_records(tmp_path):
    of = entry()
    found = [(of, record(of, result=rates(0.9))), (replace(of, chain="again"), record(of, result=rates(0.9)))]
    rows = block(write(found, tmp_path)["index.html"].read_text(), "board")["records"]
    assert [row["id"] for row in rows] == [of.cell.key[:12], f"{of.cell.key[:12]}~2"]


def test_images_are_distributed_over_records(monkeypatch):
    found = matrix()
    lines, pictures = details(found)
    assert len(pictures) == sum("pictures" in line for line in lines) == 3
    monkeypatch.setattr(details_module, "MAX_IMAGE_CHARACTERS", len(pictures[0]) + 1)
    lines, pictures = details(found)
    assert [line.get("elsewhere") for line in lines if "pictures" in line or "elsewhere" in line] == [None, 1, 1]
    assert len(pictures) == 1


@pytest.mark.parametrize(
    "uri", ["javascript:alert(1)", "data:image/svg+xml;base64,AAAA", "https://example.org/x.png", 3]
)
def test_other_addresses_are_not_shown_as_images(uri):
    of = entry("detect", method="strip")
    lines, pictures = details([(of, record(of, result={"score": 1.0, "pictures": {"trigger": uri}}))])
    assert pictures == []
    assert "pictures" not in lines[0]


def test_json_cannot_end_its_script_element():
    text = script_json([HOSTILE, float("inf")])
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == [encodable(HOSTILE), "inf"]


def test_security_policy_allows_only_the_page_itself(tmp_path):
    page = write(matrix(), tmp_path)["index.html"].read_text()
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "innerHTML" not in script
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', page)) == set(FILES) - {"index.html"}


def hostile() -> list[tuple[MatrixEntry, Record]]:
    """Return the matrix with markup in every text of its records."""

    def spoil(of: MatrixEntry, kept: Record):
        method = f"{of.cell.method}{HOSTILE}" if of.cell.method else ""
        task = replace(TASK, data=HOSTILE, arch=HOSTILE)
        cell = replace(of.cell, method=method, task=task)
        attack = of.attack if of.attack == "none" else f"{of.attack}{HOSTILE}"
        spoilt = {"reason": HOSTILE, HOSTILE: HOSTILE, "numbers": {HOSTILE: HOSTILE}, "pictures": {HOSTILE: trigger(0)}}
        result = kept.result and {**kept.result, **spoilt}
        where = MatrixEntry(cell, f"{of.task}{HOSTILE}", attack, f"{of.chain}{HOSTILE}")
        return where, replace(kept, result=result, error=kept.error and HOSTILE, place=HOSTILE)

    return [spoil(*pair) for pair in matrix()]


def test_hostile_text_is_escaped(tmp_path):
    files = write(hostile(), tmp_path, title=HOSTILE)
    page = files["index.html"].read_text(encoding="utf-8")
    assert "<img" not in page
    assert page.count("</script>") == 4
    assert "\u202e" not in page
    assert "\x00" not in page
    assert (
        len(list(csv.reader(io.StringIO(files["records.csv"].read_text(encoding="utf-8"), newline=""))))
        == len(matrix()) + 1
    )


# ---- in Chromium


def look(page: Path, place: str, tmp_path: Path, *flags: str) -> str:
    """Return the DOM of the page at an address after #, or the output of ``flags``."""
    shown = ("--virtual-time-budget=3000", "--window-size=1280,900", *(flags or ("--dump-dom",)))
    return chromium.look(f"{page.as_uri()}#{place}", tmp_path / "profile", *shown)


def run_script(page: Path, script: str, tmp_path: Path, place: str = "") -> str:
    """Run ``script`` in the page without its security policy, and return the title."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    copy = page.with_name("with-script.html")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return html.unescape(re.search(r"<title>(.*?)</title>", look(copy, place, tmp_path), re.S)[1])


def heads(seen: str) -> list[str]:
    """Return the first cells of the rows of the drawn table."""
    return re.findall(r'<th data-label="[^"]*" class="text" scope="row">(?:<a[^>]*>)?([^<]*)', seen)


@needs_chromium
def test_chromium_opens_on_the_heat_map(tmp_path):
    seen = look(write(matrix(), tmp_path)["index.html"], "", tmp_path)
    assert 'href="#tab=map" data-tab="map" aria-current="page"' in seen
    assert re.search(
        r'<td class="high"[^>]*><a [^>]*title="neural-cleanse against badnets: AUC 1.000, [^"]*">1.00<small>', seen
    )
    # Empty cells give a reason, also for pairs outside of the matrix.
    assert 'title="3: the detector abstained, for instance: needs gradients"' in seen
    assert re.search(r'<td class="void" title="1: the attack was not valid, [^"]*"><a[^>]*>invalid<', seen)
    assert ">not asked<" in seen


@needs_chromium
def test_chromium_sorts_and_filters_by_address(tmp_path):
    page = write(matrix(), tmp_path)["index.html"]
    ascending = look(page, "tab=attacks&sort=asr", tmp_path)
    assert heads(ascending) == ["badnets", "blended", "none", "badnets", "badnets"]
    assert (
        '<th scope="col" class="num" aria-sort="ascending"><button type="button" title="attack success rate">'
        in ascending
    )
    assert heads(look(page, "tab=attacks&sort=-attack", tmp_path))[:2] == ["none", "blended"]
    searched = look(page, "tab=detectors&sort=auc&q=badnets+NEURAL", tmp_path)
    assert heads(searched) == ["neural-cleanse"]
    assert "1 of 3 rows" in searched
    found = look(page, "tab=records&state=failed", tmp_path)
    assert len(heads(found)) == 1
    assert "expected 3 channels" in found


@needs_chromium
def test_chromium_opens_a_record(tmp_path):
    found = matrix()
    page = write(found, tmp_path)["index.html"]
    key = next(
        record.key for where, record in found if where.cell.method == "neural-cleanse" and where.attack == "badnets"
    )
    seen = look(page, f"tab=records&record={key[:12]}", tmp_path)
    dialog = re.search(r'<dialog id="record"[^>]* open="">(.*?)</dialog>', seen, re.S)[1]
    assert html.escape(f"assay bench run spec-1-my-spec.yaml --store again --only {key[:12]}", quote=False) in dialog
    assert f'<img src="{trigger(0)}"' in dialog
    assert "<dt>numbers: steps</dt><dd>150</dd>" in dialog
    assert "<dt>Steps</dt><dd>badnets</dd>" in dialog


@needs_chromium
def test_chromium_reacts_to_clicks(tmp_path):
    page = write(matrix(), tmp_path)["index.html"]
    sort = "const head = document.querySelector('.board thead th:nth-child(4)');"
    report = "document.title = head.getAttribute('aria-sort') + ' ' + location.hash;"
    assert (
        run_script(page, f"{sort} head.firstChild.click(); {report}", tmp_path, "tab=attacks")
        == "ascending #tab=attacks&sort=asr"
    )
    focus = "const button = head.firstChild; button.focus(); button.click();"
    focus += "document.title = String(document.activeElement === button);"
    assert run_script(page, sort + focus, tmp_path, "tab=attacks") == "true"
    choose = "controls.state.value = 'invalid'; controls.state.dispatchEvent(new Event('change'));"
    rows = "document.title = document.getElementById('shown').textContent"
    assert run_script(page, choose + rows, tmp_path, "tab=records") == f"5 of {len(matrix())} rows"
    row = "document.querySelector('.table:last-child tbody td').click();"
    opened = "setTimeout(() => { document.title = String(document.getElementById('record').open); }, 100)"
    assert run_script(page, row + opened, tmp_path, "tab=records") == "true"


@needs_chromium
def test_chromium_draws_many_rows_in_parts(tmp_path):
    found = [(of, record(of, "waiting")) for of in (entry(seed=seed) for seed in range(250))]
    page = write(found, tmp_path)["index.html"]
    seen = look(page, "tab=records", tmp_path)
    assert len(heads(seen)) == 100
    assert "Show 100 more of 150 rows" in seen
    more = "const { more, body } = TABS.records; more.click(); more.click();"
    more += "document.title = more.hidden + ' ' + body.rows.length"
    assert run_script(page, more, tmp_path, "tab=records") == "true 250"


@needs_chromium
@pytest.mark.parametrize(
    "place", ["", "tab=records&record={key}", "tab=chains", "tab=detectors&q=%3Cimg&task=%3Cimg%3E"]
)
def test_chromium_runs_no_hostile_script(tmp_path, place):
    found = hostile()
    page = write(found, tmp_path, title=HOSTILE)["index.html"]
    key = next(record.key for _, record in found if record.result and record.state == "invalid")[:12]
    # Without the security policy, escaping alone has to stop it.
    bare = page.with_name("bare.html")
    bare.write_text(re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8")), encoding="utf-8")
    seen = look(bare, place.format(key=key), tmp_path)
    assert "owned</title>" not in seen
    assert not re.search(r"<img (?!src=\"data:)", seen)


@needs_chromium
@pytest.mark.parametrize("place", ["tab=map", "tab=detectors", "tab=chains"])
def test_chromium_page_fits_the_width_of_a_phone(tmp_path, place):
    page, shot = write(matrix(), tmp_path)["index.html"], tmp_path / "shot.png"
    # Windows have a minimum width, frames do not.
    frame = page.with_name("frame.html")
    frame.write_text(
        f'<body style="margin:0"><iframe src="index.html#{place}" style="border:0;width:390px;height:2600px">'
    )
    look(frame, "", tmp_path, f"--screenshot={shot}", "--window-size=520,2600")
    pixels = np.asarray(Image.open(shot).convert("RGB"))[:, :390]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    margin = pixels[:, -8:]
    assert (margin == margin[0, 0]).all(), "content exceeds the page's margin"


# ---- index page


def summaries() -> list[MatrixSummary]:
    return [
        MatrixSummary.of("signs", "signs/index.html", matrix()),
        MatrixSummary.of(f"odd {HOSTILE}", "odd folder/<b>/index.html", hostile()),
    ]


def test_index_links_every_matrix_with_its_cells(tmp_path):
    page = write_index(summaries(), tmp_path).read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^#"]+)"', page)
    assert links == ["signs/index.html", "odd%20folder/%3Cb%3E/index.html"]
    cells = re.findall(r'data-label="Cells">([\d,]+)<', page)
    assert cells == [str(len(matrix()))] * 2
    assert f">{len(matrix()) - 7} done<" in page
    assert ">1 missing<" in page
    assert "none, badnets, blended" in page
    assert f"2 matrices, {2 * len(matrix())} cells" in page


def test_index_escapes_hostile_text_and_has_no_script(tmp_path):
    page = write_index(summaries(), tmp_path).read_text(encoding="utf-8")
    assert "<img" not in page
    assert "<script" not in page
    assert "\u202e" not in page
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


@needs_chromium
def test_chromium_index_is_reachable_by_keyboard(tmp_path):
    page = write_index(summaries(), tmp_path)
    with chromium.Chromium() as browser:
        browser.open(page.as_uri())
        browser.wait("document.readyState === 'complete' && document.querySelectorAll('td').length > 0")
        stops = []
        for _ in range(4):
            for kind in ("keyDown", "keyUp"):
                browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            stops.append(browser.value("document.activeElement.className || document.activeElement.textContent"))
        assert stops[:3] == ["skip", "scroll", "signs"]
        assert stops[3].startswith("odd")


@needs_chromium
def test_chromium_index_fits_the_width_of_a_phone(tmp_path):
    with chromium.Chromium() as browser:
        browser.open(write_index(summaries(), tmp_path).as_uri(), width=390, height=900)
        browser.wait("document.querySelectorAll('td').length > 0")
        assert browser.value("document.documentElement.scrollWidth") <= 390
