"use strict";

// Sorting: a click or Enter on a heading sorts by its column, up, down, then as it was; within each group of the table.

const collator = new Intl.Collator("en", { numeric: true });

function sortKey(cell, isText) {
  const text = cell.textContent.trim();
  if (text === "" || text === "-") return [2, ""];
  const value = isText ? NaN : Number.parseFloat(text);
  return Number.isNaN(value) ? [1, text] : [0, value];
}

function compare([kind, value], [otherKind, other], direction) {
  if (kind !== otherKind) return kind - otherKind; // what is missing is last in either direction
  return direction * (kind === 0 ? value - other : collator.compare(value, other));
}

function sortBody(body, column, isText, direction) {
  const lines = [...body.rows].filter((row) => !row.classList.contains("group"));
  const keyed = lines.map((row, place) => {
    row.place ??= place; // as it was in the page
    return { row, key: direction ? sortKey(row.cells[column], isText) : [0, row.place] };
  });
  keyed.sort((one, other) => compare(one.key, other.key, direction || 1) || one.row.place - other.row.place);
  body.append(...keyed.map(({ row }) => row));
}

function sortBy(heading) {
  const table = heading.closest("table");
  const next = { ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort")] ?? "ascending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", next);
  const direction = { ascending: 1, descending: -1, none: 0 }[next];
  for (const body of table.tBodies) sortBody(body, heading.cellIndex, "text" in heading.dataset, direction);
}

function makeSortable(table) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(heading));
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
  }
}

// Filters: a line is shown if it, or its group, has every value that is chosen, and all words of the text.

function textOf(row, body) {
  row.searched ??= `${body.dataset.title} ${row.textContent}`.toLowerCase();
  return row.searched;
}

function applyFilters(form, table, count) {
  const chosen = [...form.querySelectorAll("select")].filter((select) => select.value !== "");
  const words = document.getElementById("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  let all = 0;
  for (const body of table.tBodies) {
    let here = 0;
    for (const row of [...body.rows].slice(1)) {
      const has = ({ dataset: { filter }, value }) => (row.dataset[filter] ?? body.dataset[filter]) === value;
      row.hidden = !(chosen.every(has) && words.every((word) => textOf(row, body).includes(word)));
      here += !row.hidden;
      all += 1;
    }
    body.hidden = here === 0;
    shown += here;
  }
  count.value = `${shown} of ${all} lines`;
}

function makeFilterable(form) {
  const table = document.getElementById("summary");
  const apply = () => applyFilters(form, table, document.getElementById("count"));
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply)); // once the fields are empty
  form.addEventListener("submit", (event) => event.preventDefault());
  apply(); // a page that is shown again may have kept what was chosen
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll("#filters").forEach(makeFilterable);
