"use strict";
// The timeline of each run follows its brush and shows one replica, each, or all; a click on a slow request shows its life.
(() => {
  const { runs, colours, dashes } = simslm.data;
  const STEPS = 1000;

  for (const [anchor, run] of Object.entries(runs)) {
    const at = (name) => document.getElementById(`${anchor}-${name}`);
    if (at("timeline")) overtime(at, anchor, run);
    if (at("life")) slowest(at, anchor, run);
  }

  function overtime(at, anchor, run) {
    const id = `${anchor}-timeline`;
    const whole = simslm.figure(id);
    const [low, high] = at("brush").querySelectorAll("input");
    const veils = at("brush").querySelectorAll(".veil");
    const span = run.end - run.begin;
    let shown = "-1";
    let range = [run.begin, run.end];

    // The trace of a quantity with the values of one replica; none where it is unknown there.
    function ofReplica(trace, number, extra) {
      const values = run.replicas[number].series[trace.meta.series]?.[trace.meta.part];
      return values ? { ...trace, y: values, ...extra } : null;
    }

    function traces() {
      if (shown === "-1") return whole.data;
      if (shown !== "each") return whole.data.map((trace) => ofReplica(trace, shown)).filter(Boolean);
      const numbers = Object.keys(run.replicas).sort((a, b) => a - b);
      return whole.data.filter((trace) => trace.meta.single).flatMap((trace) => numbers.map((number, i) =>
        ofReplica(trace, number, {
          name: `replica ${number}`,
          line: { ...trace.line, color: colours[i], dash: dashes[i], width: 1.5 },
          hovertemplate: `replica ${number} %{y:.4~g}<extra></extra>`,
        })).filter(Boolean));
    }

    function show() {
      const layout = structuredClone(whole.layout);
      layout.xaxis.range = range;
      layout.uirevision = range.join();
      if (shown !== "-1") {
        const limit = Object.values(run.replicas)[0].limit;
        for (const shape of layout.shapes) shape.y0 = shape.y1 = limit;
        for (const [name, axis] of Object.entries(layout)) {
          if (!name.startsWith("yaxis") || !axis.range) continue;
          if (axis.title.text === "% of blocks") delete axis.range;
          else axis.range = [0, axis.range[1] * limit / run.limit];
        }
      }
      layout.annotations.forEach((note, i) => {
        const unit = layout[`yaxis${i ? i + 1 : ""}`].title.text;
        if (shown === "each") note.text = run.headings[i];
        else if (shown !== "-1") note.text = run.replicas[shown].headings[unit] ?? note.text;
      });
      if (at("shown")) at("timeline-title").querySelector(".name").textContent = at("shown").selectedOptions[0].textContent;
      if (at("keys")) at("keys").hidden = shown !== "each";
      brushed();
      return simslm.show(id, { data: traces(), layout });
    }

    // Draws the veils over what is not shown, and says what is.
    function brushed() {
      const [left, right] = range.map((time) => span ? (time - run.begin) / span : 0);
      veils[0].style.width = `${100 * left}%`;
      veils[1].style.width = `${100 * (1 - right)}%`;
      low.value = Math.round(left * STEPS);
      high.value = Math.round(right * STEPS);
      const words = `${range[0].toPrecision(4) * 1} s to ${range[1].toPrecision(4) * 1} s`;
      low.setAttribute("aria-valuetext", words);
      high.setAttribute("aria-valuetext", words);
      at("span").textContent = left > 0 || right < 1 ? words : "";
      at("whole").disabled = !(left > 0 || right < 1);
    }

    function moved() {
      const from = Math.min(+low.value, STEPS - 5);
      const to = Math.max(+high.value, 5);
      const ends = this === low ? [Math.min(from, to - 5), to] : [from, Math.max(to, from + 5)];
      range = ends.map((end) => run.begin + span * end / STEPS);
      brushed();
      Plotly.relayout(id, { "xaxis.range": range });
    }

    low.addEventListener("input", moved);
    high.addEventListener("input", moved);
    low.addEventListener("change", show);
    high.addEventListener("change", show);
    at("whole").addEventListener("click", () => { range = [run.begin, run.end]; show(); });
    at("shown")?.addEventListener("change", () => { shown = at("shown").value; show(); });
    simslm.ready.then(() => at("timeline").on("plotly_relayout", () => {
      range = at("timeline").layout.xaxis.range.map((end) => Math.min(Math.max(end, run.begin), run.end));
      brushed();
    }));
    brushed();
  }

  function slowest(at, anchor, run) {
    const table = at("requests");

    function show(request) {
      const life = run.lives[request];
      for (const row of table.querySelectorAll("tr[data-life]")) {
        const chosen = row.dataset.life === request;
        row.classList.toggle("current", chosen);
        row.querySelector("button").setAttribute("aria-pressed", chosen);
      }
      at("life-title").querySelector(".name").textContent = life.title;
      at("life").setAttribute("aria-label", life.words);
      at("events").replaceChildren(...life.events.map(([name, words]) => {
        const pair = document.createElement("div");
        pair.append(document.createElement("dt"), document.createElement("dd"));
        [pair.firstChild.textContent, pair.lastChild.textContent] = [name, words];
        return pair;
      }));
      simslm.say(life.words);
      return simslm.show(`${anchor}-life`, life.figure);
    }

    table.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-life]");
      if (row) show(row.dataset.life);
    });
    at("rank").addEventListener("change", () => {
      for (const body of table.tBodies) body.hidden = body.dataset.rank !== at("rank").value;
      show(table.querySelector("tbody:not([hidden]) tr").dataset.life);
    });
    table.querySelector("tr[data-life]").classList.add("current");
    table.querySelector("button").setAttribute("aria-pressed", true);
  }
})();
