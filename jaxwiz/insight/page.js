// The page's only script: filters lineages and shows what changed from row to row. Every text of a model gets onto the
// page through textContent, never as markup.
"use strict";

const lineages = JSON.parse(document.getElementById("data").textContent); // each a list of rows, by round
const list = document.getElementById("list");
const more = document.getElementById("more");
const search = document.getElementById("search");
const outcome = document.getElementById("outcome");
const operation = document.getElementById("operation");
const against = document.getElementById("against");
const AT_A_TIME = 50;
const MOST_CELLS = 4e6; // of a comparison's table: about 2,000 words against 2,000
let found = [];
let shown = 0;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children); // strings become text nodes
  return made;
}

// --- changes ---

function words(text) {
  return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || [];
}

// Returns [kind, text] parts, kind "same", "added" or "removed", by the longest common subsequence; null: too long.
function changes(before, after) {
  const old = words(before);
  const young = words(after);
  let start = 0;
  while (start < old.length && start < young.length && old[start] === young[start]) start += 1;
  let end = 0;
  while (end < old.length - start && end < young.length - start && old.at(-1 - end) === young.at(-1 - end)) end += 1;
  const a = old.slice(start, old.length - end);
  const b = young.slice(start, young.length - end);
  if (a.length * b.length > MOST_CELLS) return null;
  const wide = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * wide); // of the rest of both, from each pair of places
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const skip = Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
      longest[i * wide + j] = a[i] === b[j] ? longest[(i + 1) * wide + j + 1] + 1 : skip;
    }
  }
  const parts = [];
  const add = (kind, text) => {
    if (parts.length && parts.at(-1)[0] === kind) parts.at(-1)[1] += text;
    else if (text) parts.push([kind, text]);
  };
  add("same", old.slice(0, start).join(""));
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add("same", a[i]);
      i += 1;
      j += 1;
    } else if (i < a.length && (j === b.length || longest[(i + 1) * wide + j] >= longest[i * wide + j + 1])) {
      add("removed", a[i]);
      i += 1;
    } else {
      add("added", b[j]);
      j += 1;
    }
  }
  add("same", old.slice(old.length - end).join(""));
  return parts;
}

function compared(before, after) {
  const parts = changes(before, after);
  if (!parts) return [after];
  const tags = { added: "ins", removed: "del" };
  return parts.map(([kind, text]) => (tags[kind] ? element(tags[kind], {}, text) : text));
}

// --- lineages ---

function asked(row) {
  return row.input ? `${row.instruction}\n\n${row.input}` : row.instruction;
}

function step(row, rows) {
  const parent = against.value === "seed" ? rows[0] : rows.find((one) => one.id === row.parent);
  const base = against.value && row.round > 0 && row.instruction ? parent : undefined;
  const head = element("h3", {}, row.round ? `round ${row.round}: ${row.operation}` : "seed");
  head.append(element("span", { class: `badge ${row.rejected ? "failed" : "passed"}` }, row.rejected || "kept"));
  if (row.difficulty) head.append(element("span", { class: "soft" }, `difficulty ${row.difficulty}`));
  if (row.attempt) head.append(element("span", { class: "soft" }, `its parent's attempt ${row.attempt + 1}`));
  const made = element("div", { class: `step ${row.rejected ? "rejected" : "kept"}` }, head);
  const text = base ? compared(asked(base), asked(row)) : [asked(row) || "(nothing was written)"];
  made.append(element("pre", { class: "text" }, ...text));
  if (row.output) {
    made.append(element("details", {}, element("summary", {}, "answer"), element("pre", { class: "wrap" }, row.output)));
  }
  return made;
}

function open(box, rows) {
  box.querySelectorAll(".step").forEach((old) => old.remove());
  box.append(...rows.map((row) => step(row, rows)));
}

function entry(rows) {
  const path = rows.map((row) => (row.rejected ? "✗" : "✓")).join(" → ");
  const first = rows[0].instruction.split("\n")[0];
  const title = first.length > 140 ? `${first.slice(0, 139)}…` : first;
  const summary = element("summary", {}, element("strong", {}, rows[0].id), " ", title);
  summary.append(element("span", { class: "path", "aria-label": rows.map((row) => row.rejected || "kept").join(", ") }, path));
  const box = element("details", { class: "lineage" }, summary);
  box.addEventListener("toggle", () => box.open && open(box, rows));
  box.rows = rows;
  return box;
}

// --- filters ---

function matches(rows) {
  const wanted = search.value.trim().toLowerCase();
  const texts = (row) => [row.id, row.instruction, row.input, row.output];
  if (wanted && !rows.some((row) => texts(row).some((text) => text.toLowerCase().includes(wanted)))) return false;
  return (
    (!outcome.value && !operation.value) ||
    rows.some((row) => {
      const by = !operation.value || row.operation === operation.value;
      if (!outcome.value) return by;
      return by && (outcome.value === "kept" ? row.round > 0 && !row.rejected : `-${row.rejected}` === outcome.value);
    })
  );
}

function showMore() {
  list.append(...found.slice(shown, shown + AT_A_TIME).map(entry));
  shown = Math.min(found.length, shown + AT_A_TIME);
  more.hidden = shown === found.length;
}

function filter() {
  found = lineages.filter(matches);
  shown = 0;
  list.replaceChildren();
  showMore();
  document.getElementById("count").textContent = `${found.length} of ${lineages.length}`;
}

document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
[search, outcome, operation].forEach((field) => field.addEventListener("input", filter));
against.addEventListener("input", () => list.querySelectorAll("details[open].lineage").forEach((box) => open(box, box.rows)));
more.addEventListener("click", showMore);
filter();
