// ---- tables

function buildTable(key) {
  const tab = TABS[key];
  const heads = tab.columns.map((column) => {
    const button = make("button", { type: "button" }, column.label);
    if (column.hint) button.title = column.hint;
    button.addEventListener("click", () => sortBy(tab, column));
    return make("th", { scope: "col", class: column.align }, button);
  });
  tab.heads = heads;
  tab.body = make("tbody");
  tab.more = make("button", { type: "button", class: "more" });
  tab.more.addEventListener("click", () => {
    drawRows(tab, tab.drawn + PAGE);
  });
  const table = make("table", { class: "board" }, make("thead", null, make("tr", null, ...heads)), tab.body);
  tab.wrap = make("div", { class: "table" }, table, tab.more);
  if (key === "records") tab.body.addEventListener("click", openRow);
  return tab.wrap;
}

function sortBy(tab, column) {
  const now = sortOf(tab, wanted());
  const down = now.column === column ? !now.down : Boolean(column.numeric);
  go({ sort: `${down ? "-" : ""}${column.id}` });
}

// A click anywhere in a record's row opens it. Keyboards use the link in its first cell.
function openRow(event) {
  const row = event.target.closest("tr");
  if (row && !event.target.closest("a") && !String(getSelection())) row.querySelector("a").click();
}

function drawTable(tab, rows, parameters) {
  const sort = sortOf(tab, parameters);
  tab.columns.forEach((column, index) => {
    if (column === sort.column) tab.heads[index].setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    else tab.heads[index].removeAttribute("aria-sort");
  });
  tab.shown = sorted(rows, sort);
  tab.body.replaceChildren();
  tab.drawn = 0;
  drawRows(tab, PAGE);
}

function drawRows(tab, upTo) {
  tab.body.append(...tab.shown.slice(tab.drawn, upTo).map((row) => drawRow(tab, row)));
  tab.drawn = Math.min(upTo, tab.shown.length);
  const left = tab.shown.length - tab.drawn;
  tab.more.hidden = left === 0;
  tab.more.textContent = `Show ${Math.min(PAGE, left)} more of ${plural(left, "row")}`;
}

function drawRow(tab, row) {
  const cells = tab.columns.map((column, index) => {
    const attributes = { "data-label": column.label, class: column.align };
    return make(index ? "td" : "th", index ? attributes : { ...attributes, scope: "row" }, column.cell(row));
  });
  return make("tr", { class: row.states && !row.models ? "empty" : "" }, ...cells);
}
