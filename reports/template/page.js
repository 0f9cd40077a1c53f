"use strict";
// The only script of the site, carried inside every page: theme, code folding, sliders, filter. All of it is optional.
const root = document.documentElement, memory = {
  get() { try { return localStorage.getItem("theme"); } catch { return null; } },  // file:// may refuse
  set(value) { try { localStorage.setItem("theme", value); } catch { /* then it lasts until the page is left */ } },
};
if (memory.get()) root.dataset.theme = memory.get();  // before the first paint

document.addEventListener("DOMContentLoaded", () => {
  const find = (selector) => document.querySelector(selector), all = (selector) => [...document.querySelectorAll(selector)];
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";

  const theme = find("#theme"), name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.onclick = () => { root.dataset.theme = dark() ? "light" : "dark"; memory.set(root.dataset.theme); name(); };
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

  for (const stepper of all("figure.stepper")) {
    const range = stepper.querySelector("input[type=range]"), frames = [...stepper.querySelectorAll("img")];
    if (!range) continue;
    const show = () => {
      frames.forEach((frame, index) => { frame.hidden = index !== Number(range.value); });
      const label = frames[range.value].dataset.label;
      stepper.querySelector("output").textContent = label;
      range.setAttribute("aria-valuetext", label);
    };
    range.addEventListener("input", show);
    show();
  }

  const filter = find("#filter");
  if (filter) {
    const cards = all(".card");
    find(".filter").hidden = cards.length === 0;
    const apply = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const card of cards) {
        card.hidden = !words.every((word) => card.dataset.words.includes(word));
        if (!card.hidden) count += 1;
      }
      all(".part").forEach((part) => { part.hidden = !part.querySelector(".card:not([hidden])"); });
      find("#nothing").hidden = count > 0 || cards.length === 0;
      find("#matches").textContent = words.length ? `${count} of ${cards.length}` : "";
    };
    filter.addEventListener("input", apply);
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && document.activeElement !== filter) { event.preventDefault(); filter.focus(); }
      if (event.key === "Escape" && document.activeElement === filter) { filter.value = ""; apply(); }
    });
    apply();
  }
});
