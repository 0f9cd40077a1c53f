"use strict";
// The only script of the site, carried inside every page: theme, code folding, sliders, the index's filter, comparisons.
// All of it is optional.
const root = document.documentElement, memory = {
  get() { try { return localStorage.getItem("theme"); } catch { return null; } },  // file:// may refuse
  set(value) { try { localStorage.setItem("theme", value); } catch { /* then it lasts until the page is left */ } },
};
if (memory.get()) root.dataset.theme = memory.get();  // before the first paint
const framed = window.parent !== window;  // a column of a comparison
if (framed) root.classList.add("framed");
const tell = (page, what) => page.postMessage(what, "*");  // from file:// no page has a name to send to

document.addEventListener("DOMContentLoaded", () => {
  const find = (selector) => document.querySelector(selector), all = (selector) => [...document.querySelectorAll(selector)];
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const frames = all("iframe"), toFrames = (what) => frames.forEach((frame) => tell(frame.contentWindow, what));

  const theme = find("#theme"), name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.onclick = () => {
    root.dataset.theme = dark() ? "light" : "dark";
    memory.set(root.dataset.theme);
    name();
    toFrames({ theme: root.dataset.theme });
  };
  system.addEventListener("change", name);
  name();

  const code = find("#code"), folds = all("details.code");
  if (code && folds.length) {
    code.hidden = false;
    code.onclick = () => {
      const open = code.getAttribute("aria-pressed") !== "true";
      folds.forEach((fold) => { fold.open = open; });
      code.setAttribute("aria-pressed", open);
    };
  }

  const toc = find(".toc details"), wide = matchMedia("(min-width: 70rem)");
  if (toc) { toc.open = wide.matches; wide.addEventListener("change", () => { toc.open = wide.matches; }); }

  const steppers = all("figure.stepper").filter((stepper) => stepper.querySelector("input[type=range]")).map(stepping);
  if (find(".filter")) filter(find, all);
  if (find(".columns")) compare(frames, toFrames, find, all);
  if (framed) column(steppers, all);
});

// A figure that is stepped through; gives a function that shows its frame of a number.
function stepping(stepper, number) {
  const range = stepper.querySelector("input[type=range]"), output = stepper.querySelector("output");
  const frames = [...stepper.querySelectorAll("img, svg.drawing")], captions = frames.map(caption);
  if (captions.some(Boolean)) {  // all lie on one place, so that the page keeps its height
    const place = stepper.appendChild(document.createElement("div"));
    place.className = "captions";
    captions.forEach((words) => { place.append(words || document.createElement("p")); });
  }
  const show = () => {
    frames.forEach((frame, index) => { frame.toggleAttribute("hidden", index !== Number(range.value)); });
    [...stepper.querySelectorAll(".captions > *")].forEach((words, index) => {
      words.classList.toggle("shown", index === Number(range.value));
    });
    const label = frames[range.value].dataset.label;
    output.textContent = label;
    output.dataset.place = `${Number(range.value) + 1} of ${frames.length}`;  // for paper
    range.setAttribute("aria-valuetext", label);
  };
  range.addEventListener("input", () => {
    show();
    if (framed) tell(parent, { stepper: number, at: range.value });
  });
  show();
  return (at) => { range.value = at; show(); };
}

// A frame's words below it, unless its label says as much; screen readers have them from the picture.
function caption(frame) {
  const said = frame.alt ?? frame.getAttribute("aria-label");  // a drawing that shares its parts is no `img`
  if (fold(said) === fold(frame.dataset.label)) return null;
  const words = document.createElement("p");
  words.className = "caption";
  words.setAttribute("aria-hidden", "true");
  words.textContent = said;
  return words;
}

// As the index's cards are written: `Grad-CAM`, `grad_cam` and `grad cam` are the same.
function fold(text) {
  const plain = text.replaceAll("++", " plus plus ").replaceAll("×", " x ").toLowerCase().normalize("NFKD");
  return plain.replace(/\p{M}/gu, "").replace(/[^\p{L}\p{N}]+/gu, " ").trim();
}

// The index: what is typed and chosen narrows its cards and stands in the address, so that it can be gone back to and mailed.
function filter(find, all) {
  const typed = find("#filter"), fields = all(".filter [name]"), clear = find("#clear");
  const cards = all(".card").map((card) => ({ card, words: ` ${card.dataset.words}`, has: (name, value) => JSON.parse(card.dataset[name]).includes(value) }));
  find(".filter").hidden = cards.length === 0;

  const apply = () => {
    const words = fold(typed.value).split(" "), chosen = fields.filter((field) => field !== typed && field.value);
    let count = 0;
    for (const { card, words: text, has } of cards) {
      card.hidden = !(words.every((word) => text.includes(` ${word}`)) && chosen.every(({ name, value }) => has(name, value)));
      if (!card.hidden) count += 1;
    }
    all(".part").forEach((part) => { part.hidden = !part.querySelector(".card:not([hidden])"); });
    find("#nothing").hidden = count > 0 || cards.length === 0;
    clear.hidden = !fields.some((field) => field.value);
    find("#matches").textContent = clear.hidden ? `All ${count} shown` : `${count} of ${cards.length} shown`;
  };
  const remember = () => {
    const given = fields.filter((field) => field.value).map(({ name, value }) => [name, value]);
    const address = location.href.split("#")[0] + (given.length ? `#${new URLSearchParams(given)}` : "");
    try { history.replaceState(null, "", address); } catch { /* too often in a short time: the next letter will */ }
  };
  const recall = () => {  // `#20_cam` is a card's own address and no filter
    const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    for (const field of fields) {
      const value = given.get(field.name) || "";
      if (field !== typed && ![...field.options].some((option) => option.value === value)) field.add(new Option(value, value));
      field.value = value;
    }
    apply();
  };
  const reset = () => { fields.forEach((field) => { field.value = ""; }); apply(); remember(); };

  fields.forEach((field) => field.addEventListener("input", () => { apply(); remember(); }));
  clear.onclick = () => { reset(); typed.focus(); };
  window.addEventListener("hashchange", recall);
  window.addEventListener("pageshow", recall);  // also where a browser fills fields in again
  document.addEventListener("keydown", (event) => {
    const inside = document.activeElement.closest(".filter");
    if (event.key === "/" && !inside) { event.preventDefault(); typed.focus(); }
    if (event.key === "Escape" && inside) reset();
    if (event.key === "Enter" && document.activeElement === typed) find(".card:not([hidden]) h3 a")?.focus();
  });
  recall();
}

// A comparison: cells of the columns begin at one height, and sliders move together.
function compare(frames, toFrames, find, all) {
  const rows = new Map(), boxes = all(".choice input"), columns = all("section.column");
  const level = () => {
    const highest = {};
    for (const [frame, heights] of rows) {
      if (!frame.offsetParent) continue;  // not among the chosen
      for (const [row, height] of Object.entries(heights)) highest[row] = Math.max(height, highest[row] || 0);
    }
    toFrames({ rows: highest });
  };
  window.addEventListener("message", ({ source, data }) => {
    const frame = frames.find(({ contentWindow }) => contentWindow === source);
    if (!frame) return;
    if (data.rows) { rows.set(frame, data.rows); level(); }
    if (data.height) frame.style.height = `${data.height}px`;
    if (data.at) frames.forEach((other) => { if (other !== frame) tell(other.contentWindow, data); });
  });
  const chosen = () => boxes.filter((box) => box.checked).map((box) => box.value);
  const show = () => {
    columns.forEach((column) => { column.hidden = boxes.length > 0 && !chosen().includes(column.dataset.label); });
    level();
  };
  const recall = () => {
    const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "").getAll("show");
    boxes.forEach((box) => { box.checked = given.length ? given.includes(box.value) : box.defaultChecked; });
    show();
  };
  boxes.forEach((box) => box.addEventListener("change", () => {
    show();
    const address = new URLSearchParams(chosen().map((label) => ["show", label]));
    history.replaceState(null, "", `${location.href.split("#")[0]}#${address}`);
  }));
  if (boxes.length) find(".choice").hidden = false;
  window.addEventListener("hashchange", recall);
  recall();
}

// This page as a column: it says how high its cells are and makes them as high as the highest beside them.
function column(steppers, all) {
  const rows = new Map(all(".head > .panel").map((panel) => [panel.getAttribute("aria-label"), panel]));
  all("main > .cell, main > .fold").forEach((cell, number) => rows.set(number, cell));
  const height = (cell) => Math.ceil(cell.getBoundingClientRect().height);
  const raise = (heights) => { for (const [row, cell] of rows) cell.style.minHeight = heights[row] ? `${heights[row]}px` : ""; };
  let heading = null, told = "", asked = {};
  for (const cell of all("main > .cell")) {  // a heading stays if a figure or a number comes before the next
    if (cell.querySelector(":scope > :is(h2, h3, h4)")) {
      heading = cell;
      heading.hidden = true;
    } else if (heading && height(cell)) {
      heading.hidden = false;
      heading = null;
    }
  }
  const say = () => {
    raise({});  // to see how high they are of themselves
    const heights = Object.fromEntries([...rows].map(([row, cell]) => [row, height(cell)])), now = JSON.stringify(heights);
    raise(asked);
    if (now !== told) tell(parent, { rows: heights });
    told = now;
    tell(parent, { height: Math.ceil(document.body.getBoundingClientRect().height) });
  };
  window.addEventListener("message", ({ source, data }) => {
    if (source !== parent) return;
    if (data.theme) root.dataset.theme = data.theme;
    if (data.at) steppers[data.stepper]?.(data.at);
    if (data.rows) {
      asked = data.rows;
      say();
    }
  });
  all("a[href]:not([href^='#'])").forEach((link) => { link.target = "_top"; });
  const watch = new ResizeObserver(say);
  for (const cell of rows.values()) [...cell.children].forEach((child) => watch.observe(child));
  say();
}
