"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const config = { displayModeBar: false, doubleClick: "reset" };
  const touch = matchMedia("(pointer: coarse)").matches;

  // A copy of a figure with the palette's names replaced by the colours of the current theme.
  function coloured(value, style) {
    if (typeof value === "string") {
      return value.replace(/@[a-z]+/g, (name) => style.getPropertyValue("--" + name.slice(1)).trim());
    }
    if (Array.isArray(value)) {
      return value.map((item) => coloured(item, style));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
    }
    return value;
  }

  function draw() {
    const style = getComputedStyle(root);
    const drawn = Object.entries(figures).map(([id, figure]) => {
      const { data, layout } = coloured(figure, style);
      const div = document.getElementById(id);
      layout.width = div.clientWidth;
      if (touch) layout.dragmode = false;
      return Plotly.react(div, data, layout, config);
    });
    return Promise.all(drawn).then(() => { root.dataset.drawn = "true"; });
  }

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(button));
  }
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width !== innerWidth) { width = innerWidth; draw(); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => { root.dataset.paper = ""; draw(); });
  addEventListener("afterprint", () => { delete root.dataset.paper; draw(); });
  draw();
})();
