// The page's only script: filters the tasks and shows what each system answered. Every text of a program or model gets
// onto the page through textContent, never as markup.
"use strict";

const blocks = [...document.querySelectorAll("script.data")];
const systems = JSON.parse(blocks[0].textContent); // {labels, sources}
const rows = [...document.querySelectorAll("tr.task")];
const parsed = new Map(); // task's position -> its data block
const search = document.getElementById("search");
const verdict = document.getElementById("verdict");
const choice = document.getElementById("systems");
const LETTERS = { p: ["passed", "✓ passed"], f: ["failed", "✗ failed"], t: ["timed_out", "◷ timed out"] };

function dataOf(position) {
  if (!parsed.has(position)) parsed.set(position, JSON.parse(blocks[position + 1].textContent));
  return parsed.get(position);
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children); // strings become text nodes
  return made;
}

// --- filters ---

function searchable(position) {
  const task = dataOf(position);
  if (!task.searchable) {
    const details = task.systems.flatMap((system) => Object.values(system.shown));
    const words = details.flatMap((one) => [one.reason, one.detail, one.input, one.expected, one.actual]);
    task.searchable = [rows[position].innerText, ...task.texts, ...words].join("\n").toLowerCase();
  }
  return task.searchable;
}

function matches(row, position) {
  const wanted = search.value.trim().toLowerCase();
  if (wanted && !searchable(position).includes(wanted)) return false;
  const option = verdict.selectedOptions[0];
  if (option.value) {
    const place = Number(option.dataset.system);
    if (option.value === "base" && row.dataset.base.split(" ")[place] !== "1") return false;
    if (option.value !== "base" && row.dataset.status.split(" ")[place] !== option.value.split(":")[1]) return false;
  }
  if (!choice || !choice.value) return true;
  const rates = row.dataset.rates.split(" ").map(Number);
  const other = rates[Number(choice.selectedOptions[0].dataset.system)];
  if (choice.value === "differ") return rates.some((rate) => rate !== rates[0]);
  if (choice.value === "none") return rates.every((rate) => rate === 0);
  return choice.value === "better" ? other > rates[0] : other < rates[0];
}

function filter() {
  let shown = 0;
  rows.forEach((row, position) => {
    row.hidden = !matches(row, position);
    if (row.detail) row.detail.hidden = row.hidden;
    shown += !row.hidden;
  });
  const all = `${rows.length} tasks`;
  document.getElementById("count").textContent = shown === rows.length ? all : `${shown} of ${all}`;
}

// --- programs ---

const TOKENS = new RegExp(
  [
    /(?<c>#[^\n]*)/,
    /(?<s>[rbfuRBFU]{0,2}(?:"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))/,
    /\b(?<k>False|None|True|and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|nonlocal|not|or|pass|raise|return|try|while|with|yield)\b/,
    /\b(?<n>\d[\w.]*)/,
    /(?<d>(?<=\b(?:def|class) )\w+)/,
    /[A-Za-z_]\w*/,
  ].map((part) => part.source).join("|"),
  "g",
);

// Returns a <pre> with the code, one element a line; lines whose number is in `marked` stand out.
function codeBlock(code, marked = new Set()) {
  const lines = [element("span", { class: "line" })];
  const add = (text, kind) => {
    text.split("\n").forEach((part, index) => {
      if (index) {
        lines.at(-1).append("\n");
        lines.push(element("span", { class: "line" }));
      }
      if (part) lines.at(-1).append(kind ? element("span", { class: kind }, part) : part);
    });
  };
  let end = 0;
  for (const match of code.matchAll(TOKENS)) {
    const kind = Object.entries(match.groups).find(([, text]) => text !== undefined);
    if (!kind || !match[0]) continue;
    add(code.slice(end, match.index));
    add(match[0], kind[0]);
    end = match.index + match[0].length;
  }
  add(code.slice(end));
  lines.forEach((line, number) => marked.has(number) && line.classList.add("only"));
  return element("pre", { tabindex: "0" }, ...lines);
}

// Returns, for two programs, the numbers of the lines that the other lacks: what no longest common subsequence holds.
// None where they share less than half of their lines: all would be marked.
function differingLines(first, second) {
  const [a, b] = [first, second].map((code) => code.split("\n").map((line) => line.trimEnd()));
  if (a.length * b.length > 1e6) return [new Set(), new Set()];
  const longest = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      longest[i][j] = a[i] === b[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
  const onlyA = new Set(a.keys()), onlyB = new Set(b.keys());
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) { onlyA.delete(i++); onlyB.delete(j++); }
    else if (longest[i + 1][j] >= longest[i][j + 1]) i++;
    else j++;
  }
  if (2 * longest[0][0] < Math.min(a.length, b.length)) return [new Set(), new Set()];
  return [onlyA, onlyB];
}

// --- one task ---

function openTask(row) {
  const position = rows.indexOf(row);
  const task = dataOf(position);
  const chosen = task.systems.map((system) => Math.max(0, system.outcomes.search(/[^p]/))); // a failure tells most
  const cell = element("td", { colspan: row.cells.length });
  row.detail = element("tr", { class: "detail", id: `detail-${position}` }, cell);
  const draw = () => {
    const shown = task.systems.map((system, place) => system.shown[chosen[place]]);
    const codes = shown.map((sample) => (sample && "code" in sample ? task.texts[sample.code] : null));
    const marked = codes.length === 2 && codes[0] !== null && codes[1] !== null ? differingLines(...codes) : [];
    const answers = task.systems.map((system, place) => answer(row, task, place, chosen, marked[place], draw));
    const asked = codeBlock(task.texts[0]);
    asked.classList.add("wrap");
    const solution = element("details", {}, element("summary", {}, "The canonical solution"), codeBlock(task.texts[1] ?? task.texts[0]));
    if (answers.length === 1) {
      const prompt = element("section", { "aria-label": "The task" }, element("h3", {}, "The task's prompt"), asked, solution);
      cell.replaceChildren(element("div", { class: "side" }, prompt, ...answers));
    } else {
      const prompt = element("details", {}, element("summary", {}, "The task's prompt"), asked);
      cell.replaceChildren(prompt, solution, element("div", { class: "side" }, ...answers));
    }
  };
  draw();
  row.after(row.detail);
  setOpen(row, true);
}

function setOpen(row, open) {
  row.classList.toggle("open", open);
  const button = row.querySelector("button");
  button.setAttribute("aria-expanded", String(open));
  if (open) button.setAttribute("aria-controls", row.detail.id);
  else button.removeAttribute("aria-controls");
}

function closeTask(row) {
  row.detail.remove();
  row.detail = null;
  setOpen(row, false);
}

function answer(row, task, place, chosen, marked, draw) {
  const system = task.systems[place];
  const position = chosen[place];
  const sample = system.shown[position];
  const [status, words] = LETTERS[system.outcomes[position]];
  const label = systems.labels[place];
  const heading = element("h3", {}, label, element("span", { class: `badge ${status}` }, words));
  if (system.base && status !== "passed" && system.base[position] === "p")
    heading.append(element("span", { class: "badge base" }, "base ✓"));
  const section = element("section", { class: "answer", "aria-label": `Answer of ${label}` }, heading);
  if (system.outcomes.length > 1) {
    const count = element("span", { class: "soft" }, `sample ${system.numbers[position]}, ${position + 1} of ${system.outcomes.length}`);
    heading.append(count);
    section.append(strip(row, system, place, chosen, draw));
  }
  if (!sample) {
    const where = `The texts of this sample are left out of this page; they are in ${systems.sources[place]}: task_id ${row.id}, sample ${system.numbers[position]}.`;
    section.append(element("p", { class: "soft" }, where));
    return section;
  }
  section.append(facts(sample));
  if (!("code" in sample)) {
    section.append(element("p", { class: "soft" }, `The program is not on this page: ${systems.sources[place]}`));
    return section;
  }
  const code = task.texts[sample.code];
  section.append(code.trim() ? codeBlock(code, marked) : element("pre", {}, "(empty)"));
  section.append(folded("What the model wrote, untouched", task.texts[sample.raw]));
  section.append(folded("What the model was asked", task.texts[sample.prompt]));
  return section;
}

function strip(row, system, place, chosen, draw) {
  const group = element("div", { class: "strip", role: "group", "aria-label": "Samples" });
  const choose = (position) => {
    chosen[place] = position;
    draw();
    row.detail.querySelectorAll(".answer")[place].querySelector('[aria-pressed="true"]').focus();
  };
  [...system.outcomes].forEach((letter, position) => {
    const name = `sample ${system.numbers[position]}: ${LETTERS[letter][0].replace("_", " ")}`;
    const pressed = position === chosen[place];
    const button = element("button", { type: "button", class: letter, title: name, "aria-label": name, "aria-pressed": String(pressed), tabindex: pressed ? "0" : "-1" });
    button.addEventListener("click", () => choose(position));
    group.append(button);
  });
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose((chosen[place] + step + system.outcomes.length) % system.outcomes.length);
  });
  return group;
}

function facts(sample) {
  const list = element("dl", { class: "facts" });
  const add = (name, value, kind = "") => list.append(element("dt", {}, name), element("dd", { class: kind }, value));
  if (sample.reason) add("reason", sample.reason.replaceAll("_", " "));
  if (sample.detail) add("message", sample.detail);
  if (sample.input) add("input", sample.input);
  if (sample.expected) add("expected", sample.expected, "right");
  if (sample.actual) add("returned", sample.actual, "wrong");
  if (sample.forgeable) add("forgeable", "the program could have written its own verdict");
  if (sample.ended) add("answer", `${sample.tokens} tokens, ended by ${sample.ended}`);
  return list;
}

function folded(title, text) {
  if (!text) return element("p", { class: "why" }, `${title}: not recorded`);
  return element("details", {}, element("summary", {}, title), element("pre", { class: "wrap", tabindex: "0" }, text));
}

// --- events ---

function toggle(row) {
  if (row.detail) closeTask(row);
  else openTask(row);
}

rows.forEach((row) => row.addEventListener("click", (event) => {
  if (!window.getSelection().toString() || event.target.closest("button")) toggle(row);
}));
for (const control of [search, verdict, choice]) control?.addEventListener("input", filter);
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape" && event.target === search) {
    search.value = "";
    filter();
  } else if (event.key === "Escape") {
    const inside = event.target.closest("tr.detail, tr.task");
    const row = rows.find((one) => one === inside || (inside && one.detail === inside));
    if (row?.detail) closeTask(row);
    row?.querySelector("button").focus();
  } else if (["ArrowDown", "ArrowUp"].includes(event.key) && event.target.closest("tr.task")) {
    event.preventDefault();
    const visible = rows.filter((row) => !row.hidden);
    const next = visible.indexOf(event.target.closest("tr.task")) + (event.key === "ArrowDown" ? 1 : -1);
    visible[next]?.querySelector("button").focus();
  }
});

function openAddressed() {
  const row = rows.find((one) => one.id === decodeURIComponent(location.hash.slice(1)));
  if (row && !row.detail) openTask(row);
  row?.scrollIntoView();
}
window.addEventListener("hashchange", openAddressed);
openAddressed();
