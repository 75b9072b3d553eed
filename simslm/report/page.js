"use strict";
// What every page's script has at hand: `simslm.data` is the page's own data, `simslm.figure(id)` a copy of a figure
// as declared, with colours by name, `simslm.show(id, figure)` draws another in its place, `simslm.copy(text, button)`
// copies, `simslm.say(text)` tells a screen reader, `simslm.ready` is kept when all plots are drawn.
const simslm = (() => {
  const root = document.documentElement;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = new Map(Object.entries(read("figures")));
  const widths = new Map();
  const config = { displayModeBar: false, doubleClick: "reset" };
  const touch = matchMedia("(pointer: coarse)").matches;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = document.getElementById("theme");

  // A copy of a figure with the palette's names replaced by the colours of the current theme.
  function coloured(value, style) {
    if (typeof value === "string") {
      return value.replace(/@[a-z]+/g, (name) => style.getPropertyValue("--" + name.slice(1)).trim());
    }
    if (Array.isArray(value)) {
      return typeof value[0] === "number" && typeof value.at(-1) === "number" ? value : value.map((item) => coloured(item, style));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
    }
    return value;
  }

  // Draws a figure as wide as its place; one that is out of sight is drawn when it comes into it.
  async function draw(id) {
    const place = document.getElementById(id);
    const width = place.clientWidth;
    if (!width) return;
    const { data, layout } = coloured(figures.get(id), getComputedStyle(root));
    widths.set(id, width);
    await Plotly.react(place, data, { uirevision: "kept", ...layout, width, ...(touch && { dragmode: false }) }, config);
  }

  function drawAll() {
    return Promise.all([...figures.keys()].map(draw));
  }

  async function copy(text, button) {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    say(button.textContent);
    setTimeout(() => { button.textContent = before; }, 1500);
  }

  function say(text) {
    document.getElementById("said").textContent = text;
  }

  function isDark() {
    return (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  }

  function themed() {
    theme.textContent = isDark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
    return drawAll();
  }

  function paper(printing) {
    if (printing === "paper" in root.dataset) return;
    if (printing) root.dataset.paper = "";
    else delete root.dataset.paper;
    drawAll();
  }

  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    themed();
  });
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(document.getElementById(button.dataset.copy).textContent, button));
  }
  dark.addEventListener("change", themed);
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
  matchMedia("print").addEventListener("change", (event) => paper(event.matches));
  const ready = themed().then(() => {
    root.dataset.drawn = "true";
    const resized = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (target.clientWidth !== widths.get(target.id)) draw(target.id);
      }
    });
    for (const id of figures.keys()) resized.observe(document.getElementById(id));
  });

  return {
    data: read("data"),
    ready,
    copy,
    say,
    figure: (id) => structuredClone(figures.get(id)),
    show(id, figure) {
      figures.set(id, figure);
      return draw(id);
    },
  };
})();
