// A policy block by block: bars from zero (or lines to compare two), over the range of all photos.
"use strict";
(function (E) {
  const { svg, el } = E;
  const HEIGHT = 248;
  const MARGIN = { left: 58, right: 8, top: 10, bottom: 88 };
  const NAME = 13; // pixels that the name of a block takes along the axis
  const LONGEST = 12; // letters of it that are shown

  function extent(store, series) {
    let low = 0;
    let high = 0;
    for (const block of store.blocks) {
      low = Math.min(low, block.q10);
      high = Math.max(high, block.q90);
    }
    for (const { policy } of series) for (const score of policy) {
      low = Math.min(low, score);
      high = Math.max(high, score);
    }
    return high > low ? [low, high] : [low - 1, high + 1];
  }

  function ticks(low, high) {
    const raw = (high - low) / 4;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= raw);
    const list = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) list.push(Number((i * step).toPrecision(6)));
    return list;
  }

  E.resolution = (block) => (block.height ? `${block.height}\u00d7${block.width}` : "");
  E.blockTitle = (block) => [block.name, E.resolution(block) && `at ${E.resolution(block)}`].filter(Boolean).join(" ");

  // Groups of neighbouring blocks of one resolution (one stage), for the axis.
  function groups(blocks) {
    const list = [];
    blocks.forEach((block, i) => {
      const text = E.resolution(block) || (block.stage === null || block.stage === undefined ? "" : `stage ${block.stage}`);
      const last = list[list.length - 1];
      if (last && last.text === text && last.stage === block.stage) last.end = i + 1;
      else list.push({ text, stage: block.stage, start: i, end: i + 1 });
    });
    return list;
  }

  function axes(store, place, width) {
    const parts = [];
    for (const value of ticks(place.low, place.high)) {
      const y = place.y(value);
      parts.push(svg("line", { class: value === 0 ? "zero" : "tick", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
      parts.push(svg("text", { class: "tick-text", x: MARGIN.left - 5, y: y + 4, "text-anchor": "end" }, String(value).replace("-", "\u2212")));
    }
    for (const group of groups(store.blocks)) {
      const left = place.x(group.start) + 1;
      const right = place.x(group.end) - 1;
      const y = HEIGHT - MARGIN.bottom + 6;
      parts.push(svg("line", { class: "group", x1: left, x2: right, y1: y, y2: y }));
      parts.push(svg("text", { class: "tick-text", x: (left + right) / 2, y: y + 14, "text-anchor": "middle" }, group.text));
    }
    const middle = (MARGIN.top + HEIGHT - MARGIN.bottom) / 2;
    parts.push(...blockNames(store, place));
    parts.push(svg("text", { class: "axis", x: (width + MARGIN.left) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "block, first to last, below the resolution of its fine branch"));
    parts.push(svg("text", { class: "axis", "text-anchor": "middle", transform: `translate(11,${middle}) rotate(-90)` }, "score: fine \u2212 coarse"));
    return parts;
  }

  // The names of the blocks, or of every few of them where they would touch; the whole name is its title.
  function blockNames(store, place) {
    const every = Math.max(1, Math.ceil(NAME / place.step));
    return store.blocks.flatMap(({ name }, i) => {
      if (i % every) return [];
      const text = name.length > LONGEST ? `\u2026${name.slice(1 - LONGEST)}` : name;
      return [svg("text", { class: "tick-text block-name", "text-anchor": "end", transform: `translate(${place.x(i + 0.5) + 3},${HEIGHT - MARGIN.bottom + 28}) rotate(-50)` },
        text, svg("title", {}, E.blockTitle(store.blocks[i])))];
    });
  }

  function bars(store, place, { policy }, scale) {
    const levels = store.levels(policy, scale);
    return store.blocks.map((block, i) => {
      const from = place.y(Math.max(0, policy[i]));
      const to = place.y(Math.min(0, policy[i]));
      return svg("rect", {
        class: "bar", x: place.x(i) + place.step * 0.22, width: place.step * 0.56, y: from, height: Math.max(1, to - from),
        fill: E.rampCss[levels[i]],
      }, svg("title", {}, `${E.blockTitle(block)}: ${E.number(policy[i], 4)} (all photos: ${E.number(block.mean, 4)})`));
    });
  }

  function line(place, policy, kind) {
    const points = Array.from(policy, (score, i) => `${place.x(i + 0.5)},${place.y(score)}`).join(" ");
    return svg("polyline", { class: `series ${kind}`, points });
  }

  const dots = (store, place, series) => store.blocks.map((block, i) =>
    svg("circle", { class: `dot ${series.kind}`, cx: place.x(i + 0.5), cy: place.y(series.policy[i]), r: 3 },
      svg("title", {}, `${series.name}, ${E.blockTitle(block)}: ${E.number(series.policy[i], 4)}`)));

  // series: [{name, policy, kind}]; one is drawn as bars, two as lines. Returns a <figure>.
  E.policyChart = function (store, series, options) {
    const width = options.width || 420;
    const [low, high] = extent(store, series);
    const pad = (high - low) * 0.06;
    const step = (width - MARGIN.left - MARGIN.right) / store.blocks.length;
    const place = { low: low - pad, high: high + pad, step, x: (i) => MARGIN.left + i * step };
    place.y = (value) => MARGIN.top + ((place.high - value) / (place.high - place.low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    const band = store.blocks.map((block, i) => svg("rect", {
      class: "band", x: place.x(i) + step * 0.08, width: step * 0.84, y: place.y(block.q90), height: Math.max(1, place.y(block.q10) - place.y(block.q90)),
    }));
    const means = store.blocks.map((block, i) => svg("line", {
      class: "mean", x1: place.x(i) + step * 0.08, x2: place.x(i) + step * 0.92, y1: place.y(block.mean), y2: place.y(block.mean),
    }));
    const drawn = series.length === 1
      ? bars(store, place, series[0], options.scale)
      : series.flatMap((item) => [line(place, item.policy, item.kind), ...dots(store, place, item)]);
    const name = `Score of each block of ${series.map((item) => item.name).join(" and ")}; the numbers stand in the table of scores`;
    return el("figure", { class: "chart" },
      svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": name }, ...band, ...axes(store, place, width), ...drawn, ...means),
      el("figcaption", {}, ...series.map((item) => el("span", { class: `key ${item.kind || "bar"}` }, item.name)),
        el("span", { class: "key band" }, "all photos: mean, and 10 to 90% of them")));
  };

  // The scores as numbers, on demand.
  E.scoreTable = function (store, series) {
    const head = el("tr", {}, el("th", { scope: "col" }, "block"), el("th", { scope: "col" }, "resolution"),
      ...series.map((item) => el("th", { scope: "col", class: "figure" }, item.short || "score")),
      series.length === 2 ? el("th", { scope: "col", class: "figure" }, "difference") : null,
      el("th", { scope: "col", class: "figure" }, "all photos"));
    const lines = store.blocks.map((block, i) => el("tr", {},
      el("th", { scope: "row" }, block.name), el("td", {}, E.resolution(block) || "\u2013"),
      ...series.map((item) => el("td", { class: "figure" }, E.number(item.policy[i], 4))),
      series.length === 2 ? el("td", { class: "figure" }, E.number(series[0].policy[i] - series[1].policy[i], 4)) : null,
      el("td", { class: "figure" }, E.number(block.mean, 4))));
    return el("details", { class: "numbers" }, el("summary", {}, "Scores as numbers"),
      el("table", {}, el("thead", {}, head), el("tbody", {}, ...lines)));
  };
})(window.ElasticExplorer);
