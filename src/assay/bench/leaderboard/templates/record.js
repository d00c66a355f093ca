// ---- one record

let details = null, pictures = null; // parsed at the first click: they are most of the page

function drawRecord(id) {
  const dialog = document.getElementById("record");
  const index = id ? board.records.findIndex((row) => row.id === id) : -1;
  if (index < 0) {
    if (dialog.open) dialog.close();
    return;
  }
  details ??= parse("details");
  const close = make("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(close, ...recordParts(board.records[index], details[index]));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function recordParts(row, detail) {
  const what = [row.kind, row.detector ?? row.mitigation].filter(Boolean).join(" ");
  const parts = [
    make("h2", { id: "record-title" }, `${what}: ${row.attack}`),
    make("p", { class: "where" }, badge(row.state), ` ${row.task} · ${row.chain} · seed ${row.seed}`),
  ];
  if (row.why && !detail.error) parts.push(make("p", { class: "absent" }, row.why));
  if (detail.error) parts.push(make("p", { class: "absent" }, detail.error));
  if (detail.pictures) parts.push(gallery(detail.pictures));
  if (detail.elsewhere) parts.push(make("p", { class: "note" }, `${plural(detail.elsewhere, "image")} left out to limit the size of this page: see records.json.`));
  if (detail.result.length) parts.push(make("h3", null, "Result"), lines(detail.result));
  parts.push(make("h3", null, "What was run"), lines(detail.facts));
  const command = board.commands[row.spec] + row.id.split("~")[0];
  parts.push(make("h3", null, "Repeat this record"),
    make("p", { class: "note" }, "Uses the specification next to this page, and a new store. Its paths are those of the machine that ran the bench."),
    make("pre", { tabindex: "0" }, make("code", null, command)));
  return parts;
}

function gallery(places) {
  pictures ??= parse("pictures");
  return make("div", { class: "gallery" }, ...Object.entries(places).map(([name, place]) =>
    make("figure", null, make("img", { src: pictures[place], alt: name }), make("figcaption", null, name))));
}

const lines = (pairs) =>
  make("dl", { class: "facts" }, ...pairs.flatMap(([label, text]) => [make("dt", null, label), make("dd", null, text)]));
