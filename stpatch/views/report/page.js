"use strict";
(() => {
  const table = document.getElementById("slide-table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  document.querySelectorAll(".tools, .keys").forEach((tool) => { tool.hidden = false; });

  // search: every word must be somewhere in the row
  const find = document.getElementById("find");
  const found = document.getElementById("found");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const search = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    found.textContent = words.length ? `${shown} of ${rows.length}` : `${rows.length} slides`;
  };
  find.addEventListener("input", search);
  search();

  // sort: numbers by their value, largest first; texts as people read them
  const names = new Intl.Collator(undefined, { numeric: true });
  const key = (row, at) => {
    const value = row.cells[at].dataset.value;
    return value === undefined ? row.cells[at].textContent : value === "" ? -Infinity : Number(value);
  };
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = head.classList.contains("num");
      const now = head.getAttribute("aria-sort");
      const next = now === "none" ? (numeric ? "descending" : "ascending") : now === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? next : "none"));
      const sign = next === "ascending" ? 1 : -1;
      const keyed = rows.map((row, i) => [key(row, at), i, row]);
      keyed.sort((a, b) => sign * (numeric ? a[0] - b[0] || 0 : names.compare(a[0], b[0])) || a[1] - b[1]);
      body.append(...keyed.map((item) => item[2]));
    });
  });

  // a link to a slide opens its details
  const open = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", open);
  open();

  // paper has no clicks: what is closed is opened for printing, and closed again
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((one) => { one.open = false; }));

  // step through the patches
  const steps = document.getElementById("steps");
  const number = steps.children.length;
  const previous = document.getElementById("previous");
  const next = document.getElementById("next");
  const where = document.getElementById("where");
  let at = 0;
  const show = () => {
    where.textContent = number ? `${at + 1} of ${number}` : "";
    previous.disabled = at <= 0;
    next.disabled = at >= number - 1;
  };
  const go = (to) => {
    at = Math.max(0, Math.min(number - 1, to));
    if (number) {
      steps.scrollTo({ left: steps.children[at].offsetLeft - steps.children[0].offsetLeft });
    }
    show();
  };
  previous.addEventListener("click", () => go(at - 1));
  next.addEventListener("click", () => go(at + 1));
  steps.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) {
      event.preventDefault();
      go(at + by);
    }
  });
  steps.addEventListener("scroll", () => {
    const width = number > 1 ? steps.children[1].offsetLeft - steps.children[0].offsetLeft : 1;
    at = Math.round(steps.scrollLeft / width);
    show();
  });
  show();
})();
