"""The leaderboard: every record in every file, nothing hostile out of its place, and how it acts in Chromium."""

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
from assay.bench.leaderboard import details as details_module
from assay.bench.leaderboard import write_leaderboard
from assay.bench.leaderboard.chains import chains_of
from assay.bench.leaderboard.details import details
from assay.bench.leaderboard.page import script_json
from assay.bench.leaderboard.tables import aggregated_csv, records_csv, records_parquet
from assay.bench.records import Record
from assay.bench.spec import ATTACK_STEP, Method, TaskSpec, ValidityCriteria
from assay.bench.statistics import AttackRow
from assay.core.errors import UnusableInput
from assay.io.images import data_uri, to_image
from assay.nn.metrics import Rate

TASK = TaskSpec("signs", "synth:signs", "resnet20-cifar")
BAND = ValidityCriteria()
BADNETS, NONE, TUNE = Method("badnets"), Method("none"), Method("fine-tune", ("epochs=2",))
STEPS = {"planted": (ATTACK_STEP,), "tuned": (ATTACK_STEP, "fine-tune"), "tuned, int8": (ATTACK_STEP, "fine-tune", "int8")}
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">&amp;\u2028\u202e'\x00\udcff"
FILES = (
    *("index.html", "records.csv", "records.json", "records.parquet"),
    *("attacks.csv", "detectors.csv", "mitigations.csv"),
)


def entry(kind="measure", *, attack="badnets", chain="planted", seed=0, method="", step=BADNETS) -> MatrixEntry:
    place = NONE if attack == "none" else step
    steps = tuple(place if name == ATTACK_STEP else TUNE if name == "fine-tune" else Method(name) for name in STEPS[chain])
    repair = (TUNE,) if kind == "mitigate" else ()
    cell = Cell(kind, TASK, steps, seed, method=method, repair=repair, valid=BAND, samples=256 * (kind == "detect"))
    return MatrixEntry(cell, TASK.name, attack, chain)


def record(of: MatrixEntry, state="done", result=None, error=None) -> Record:
    return Record(
        of.cell.key, of.cell.kind, {}, state, result, error, 12.5 if result else None, "host:1" if result else None
    )


def rate(value: float) -> dict:
    return Rate(round(1000 * value), 1000).to_json()


def rates(asr: float) -> dict:
    why = "" if asr >= BAND.asr else f"ASR {asr:.3f} is below 0.8"
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
    """Two attacks and clean models, three chains, two detectors, a mitigation; each state at least once."""
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
    add(entry(chain="tuned, int8"), "failed", error="RuntimeError: expected 3 channels, came 1")
    add(entry(chain="tuned, int8", seed=1), "waiting")
    return found


def write(found, folder: Path, title="Signs") -> dict[str, Path]:
    return write_leaderboard(found, folder / "board", title=title, specs={"my spec": "name: my spec"})


def block(page: str, name: str):
    """What one of the page's JSON elements holds."""
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)[1])


def test_every_record_is_in_every_file(tmp_path):
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


def test_the_same_files_into_the_same_folder_again(tmp_path):
    first = {name: path.read_bytes() for name, path in write(matrix(), tmp_path).items()}
    assert {name: path.read_bytes() for name, path in write(matrix(), tmp_path).items()} == first


def test_nothing_is_written_where_the_folder_cannot_be(tmp_path):
    (tmp_path / "board").write_text("a file")
    with pytest.raises(UnusableInput):
        write(matrix(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["board"]


def test_an_empty_matrix(tmp_path):
    files = write([], tmp_path)
    assert "clean_accuracy_low" in files["attacks.csv"].read_text()
    assert pq.read_table(files["records.parquet"]).num_rows == 0


def test_parquet_has_types():
    table = pq.read_table(io.BytesIO(records_parquet(matrix())))
    types = {field.name: str(field.type) for field in table.schema}
    assert types["seed"] == types["limit"] == "int64"
    assert types["clean_accuracy_low"] == types["score"] == types["seconds"] == "double"
    assert types["valid"] == "bool"
    assert "pictures" not in types
    assert table["steps"][-1].as_py() == "badnets > fine-tune (epochs=2) > int8"


def test_odd_results_are_written_all_the_same(tmp_path):
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


def test_a_spreadsheet_runs_nothing():
    of = replace(entry(), attack="=HYPERLINK(1)")
    (row,) = csv.DictReader(io.StringIO(records_csv([(of, record(of, "failed", error="@SUM(A1)"))]).decode()))
    assert row["attack"] == "'=HYPERLINK(1)"
    assert row["error"] == "'@SUM(A1)"


def test_a_row_without_figures_keeps_its_columns():
    rows = statistics.attack_rows(matrix())
    lines = aggregated_csv(AttackRow, rows).decode().splitlines()
    assert len({len(line.split(",")) for line in lines if '"' not in line}) == 1
    assert lines[0].split(",")[8:11] == ["clean_accuracy", "clean_accuracy_low", "clean_accuracy_high"]


def test_counts_every_state(tmp_path):
    found = matrix()
    page = write(found, tmp_path)["index.html"].read_text()
    shown = dict(re.findall(r"swatch (\w+)\"></i>\w+</dt><dd><strong>([\d,]+)", page))
    assert shown == {"done": str(len(found) - 7), "invalid": "5", "failed": "1", "missing": "1"}
    assert "ASR of at least 80 %, 30 points above the control, at most 10 points of clean accuracy lost" in page


def test_invalid_attacks_are_shown_and_count_in_no_average(tmp_path):
    rows = block(write(matrix(), tmp_path)["index.html"].read_text(), "board")
    blended = next(row for row in rows["attacks"] if row["attack"] == "blended")
    assert blended["asr"] is None
    assert blended["states"] == {"invalid": 3}
    assert blended["why"] == "ASR 0.400 is below 0.8"
    # Along a chain a backdoor that a step removed is what there is to see.
    tuned = next(row for row in rows["chains"] if row["chain"] == "tuned")
    assert tuned["asr"][0] == 0.5
    assert tuned["change"] == pytest.approx(-0.49)
    assert tuned["parent"] == "planted"


def test_chains_stand_after_the_one_that_they_extend():
    entries = [entry(chain=name) for name in ("tuned, int8", "tuned", "planted")]
    other = replace(entries[0], chain="first tuned", cell=replace(entries[0].cell, steps=(TUNE, BADNETS)))
    chains = chains_of([*entries, other])
    assert [(chain.name, chain.parent, chain.depth) for chain in chains] == [
        ("planted", None, 0),
        ("tuned", "planted", 1),
        ("tuned, int8", "tuned", 2),
        ("first tuned", None, 0),
    ]


def test_two_chains_of_the_same_steps_share_their_records(tmp_path):
    of = entry()
    found = [(of, record(of, result=rates(0.9))), (replace(of, chain="again"), record(of, result=rates(0.9)))]
    rows = block(write(found, tmp_path)["index.html"].read_text(), "board")["records"]
    assert [row["id"] for row in rows] == [of.cell.key[:12], f"{of.cell.key[:12]}~2"]


def test_pictures_go_round_before_they_run_out(monkeypatch):
    found = matrix()
    lines, pictures = details(found)
    assert len(pictures) == sum("pictures" in line for line in lines) == 3
    monkeypatch.setattr(details_module, "MOST_PICTURES", len(pictures[0]) + 1)
    lines, pictures = details(found)
    assert [line.get("elsewhere") for line in lines if "pictures" in line or "elsewhere" in line] == [None, 1, 1]
    assert len(pictures) == 1


@pytest.mark.parametrize(
    "uri", ["javascript:alert(1)", "data:image/svg+xml;base64,AAAA", "https://example.org/x.png", 3]
)
def test_only_pictures_are_pictures(uri):
    of = entry("detect", method="strip")
    lines, pictures = details([(of, record(of, result={"score": 1.0, "pictures": {"trigger": uri}}))])
    assert pictures == []
    assert "pictures" not in lines[0]


def test_json_cannot_leave_its_element():
    text = script_json([HOSTILE, float("inf")])
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == [HOSTILE, "inf"]


def test_nothing_but_the_page_itself_may_load_or_run(tmp_path):
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
    """The matrix with markup wherever a record may have text."""

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
    """The page's DOM, or what ``flags`` ask for, as the address after # says."""
    shown = ("--virtual-time-budget=3000", "--window-size=1280,900", *(flags or ("--dump-dom",)))
    return chromium.look(f"{page.as_uri()}#{place}", tmp_path / "profile", *shown)


def acted(page: Path, script: str, tmp_path: Path, place: str = "") -> str:
    """The title that ``script`` leaves, run in the page without the policy that would stop it."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    copy = page.with_name("acted.html")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return html.unescape(re.search(r"<title>(.*?)</title>", look(copy, place, tmp_path), re.S)[1])


def heads(seen: str) -> list[str]:
    """The first cells of the rows of the table that is drawn."""
    return re.findall(r'<th data-label="[^"]*" class="text" scope="row">(?:<a[^>]*>)?([^<]*)', seen)


@needs_chromium
def test_chromium_opens_on_the_heat_map(tmp_path):
    seen = look(write(matrix(), tmp_path)["index.html"], "", tmp_path)
    assert 'href="#tab=map" data-tab="map" aria-current="page"' in seen
    assert re.search(
        r'<td class="high"[^>]*><a [^>]*title="neural-cleanse against badnets: AUC 1.000, [^"]*">1.00<small>', seen
    )
    # An empty cell says why, and a pair that was never asked for says so too.
    assert 'title="3: the detector abstained, for instance: needs gradients"' in seen
    assert re.search(r'<td class="void" title="1: the attack was not valid, [^"]*"><a[^>]*>invalid<', seen)
    assert ">not asked<" in seen


@needs_chromium
def test_chromium_sorts_and_filters_as_the_address_says(tmp_path):
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
def test_chromium_obeys_clicks(tmp_path):
    page = write(matrix(), tmp_path)["index.html"]
    sort = "const head = document.querySelector('.board thead th:nth-child(4)');"
    report = "document.title = head.getAttribute('aria-sort') + ' ' + location.hash;"
    assert (
        acted(page, f"{sort} head.firstChild.click(); {report}", tmp_path, "tab=attacks")
        == "ascending #tab=attacks&sort=asr"
    )
    focus = "const button = head.firstChild; button.focus(); button.click();"
    focus += "document.title = String(document.activeElement === button);"
    assert acted(page, sort + focus, tmp_path, "tab=attacks") == "true"
    choose = "controls.state.value = 'invalid'; controls.state.dispatchEvent(new Event('change'));"
    rows = "document.title = document.getElementById('shown').textContent"
    assert acted(page, choose + rows, tmp_path, "tab=records") == f"5 of {len(matrix())} rows"
    row = "document.querySelector('.table:last-child tbody td').click();"
    opened = "setTimeout(() => { document.title = String(document.getElementById('record').open); }, 100)"
    assert acted(page, row + opened, tmp_path, "tab=records") == "true"


@needs_chromium
def test_chromium_draws_a_part_of_many_rows(tmp_path):
    found = [(of, record(of, "waiting")) for of in (entry(seed=seed) for seed in range(250))]
    page = write(found, tmp_path)["index.html"]
    seen = look(page, "tab=records", tmp_path)
    assert len(heads(seen)) == 100
    assert "Show 100 more of 150 rows" in seen
    more = "const { more, body } = TABS.records; more.click(); more.click();"
    more += "document.title = more.hidden + ' ' + body.rows.length"
    assert acted(page, more, tmp_path, "tab=records") == "true 250"


@needs_chromium
@pytest.mark.parametrize(
    "place", ["", "tab=records&record={key}", "tab=chains", "tab=detectors&q=%3Cimg&task=%3Cimg%3E"]
)
def test_chromium_runs_nothing_hostile(tmp_path, place):
    found = hostile()
    page = write(found, tmp_path, title=HOSTILE)["index.html"]
    key = next(record.key for _, record in found if record.result and record.state == "invalid")[:12]
    # The policy would stop it even if escaping failed; without it, escaping has to hold alone.
    bare = page.with_name("bare.html")
    bare.write_text(re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8")), encoding="utf-8")
    seen = look(bare, place.format(key=key), tmp_path)
    assert "owned</title>" not in seen
    assert not re.search(r"<img (?!src=\"data:)", seen)


@needs_chromium
@pytest.mark.parametrize("place", ["tab=map", "tab=detectors", "tab=chains"])
def test_chromium_paints_it_within_a_phones_width(tmp_path, place):
    page, shot = write(matrix(), tmp_path)["index.html"], tmp_path / "shot.png"
    # A window cannot be as narrow as a phone, a frame can.
    frame = page.with_name("frame.html")
    frame.write_text(
        f'<body style="margin:0"><iframe src="index.html#{place}" style="border:0;width:390px;height:2600px">'
    )
    look(frame, "", tmp_path, f"--screenshot={shot}", "--window-size=520,2600")
    pixels = np.asarray(Image.open(shot).convert("RGB"))[:, :390]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    margin = pixels[:, -8:]
    assert (margin == margin[0, 0]).all(), "something reaches over the page's margin"
