// ---- the page

let drawn = null; // last drawn address, without the record

const first = () => Object.keys(TABS).find((key) => TABS[key].rows.length) ?? "records";

function show() {
  const parameters = wanted();
  const key = Object.hasOwn(TABS, parameters.get("tab") ?? "") ? parameters.get("tab") : first();
  if (drawn !== address({})) drawTab(key, parameters);
  drawn = address({});
  drawRecord(parameters.get("record"));
}

function drawTab(key, parameters) {
  const tab = TABS[key];
  for (const link of document.querySelectorAll(".tabs a")) {
    link.href = address({ tab: link.dataset.tab, sort: "" });
    if (link.dataset.tab === key) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const panel of document.querySelectorAll(".panel")) panel.hidden = panel.dataset.tab !== key;
  for (const [name, other] of Object.entries(TABS)) if (other.wrap) other.wrap.hidden = name !== key;
  syncFilters(tab, parameters);
  const rows = chosen(tab, parameters);
  const all = tab.rows.length;
  document.getElementById("shown").textContent = rows.length === all ? plural(all, "row") : `${rows.length.toLocaleString("en")} of ${plural(all, "row")}`;
  if (key === "map") drawMap(rows);
  else drawTable(tab, rows, parameters);
  if (key === "chains") showCharts(rows);
}

function showCharts(rows) {
  const shown = new Set(rows.map((row) => JSON.stringify([row.task, row.attack])));
  for (const chart of document.querySelectorAll(".lines figure")) {
    chart.hidden = !shown.has(JSON.stringify([chart.dataset.task, chart.dataset.attack]));
  }
}

// With #timing=1 the page writes the times of opening and sorting into its DOM, for a benchmark.
async function measure() {
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const timed = (changes) => {
    const start = performance.now();
    go(changes);
    document.body.getBoundingClientRect(); // forces the layout
    return performance.now() - start;
  };
  document.body.getBoundingClientRect();
  const times = { drawn_ms: performance.now(), sort_ms: {} };
  await painted();
  times.painted_ms = performance.now();
  times.first_content_ms = performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
  go({ tab: "records" });
  for (const { id } of TABS.records.columns) {
    await painted();
    times.sort_ms[id] = Math.max(timed({ sort: id }), timed({ sort: `-${id}` }));
  }
  await painted();
  times.search_ms = timed({ sort: "", q: "seed badnets" });
  times.open_record_ms = timed({ q: "", record: board.records[0].id });
  document.getElementById("timing").textContent = JSON.stringify(times);
}

for (const key of Object.keys(TABS)) if (TABS[key].columns) document.getElementById("tables").append(buildTable(key));
buildFilters();
document.getElementById("record").addEventListener("close", () => {
  if (wanted().has("record")) go({});
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // its # would replace the state in the address
  document.getElementById("shown").focus();
});
addEventListener("hashchange", show);
show();
if (wanted().has("timing")) measure();
