// The map's colours and their legend; a click on a class or an outcome keeps its photos.
"use strict";
(function (E) {
  const { el } = E;
  const MOST = 24; // classes in the legend

  const swatch = (color, text, pressed, action) => el("button", { type: "button", class: "swatch", "aria-pressed": String(pressed), onclick: action },
    el("i", { style: { background: color } }), el("bdi", {}, text));

  function classes(store, colors, place, state, set) {
    const places = new Map(store.classes.map((name, i) => [name, i]));
    for (let row = 0; row < store.rows; row++) colors[row] = E.categoryPacked(places.get(store.category(row)) ?? -1);
    const toggle = (name) => set({ among: state.among.includes(name) ? state.among.filter((other) => other !== name) : [...state.among, name] });
    const wanted = store.classes.filter((name, i) => i < MOST || state.among.includes(name));
    E.clear(place, wanted.map((name) => swatch(E.categoryCss(places.get(name)), store.names[name], state.among.includes(name), () => toggle(name))),
      store.classes.length > MOST && el("span", { class: "note" }, `and ${E.count(store.classes.length - MOST)} more: choose above by Class`));
  }

  function outcomes(store, colors, place, state, set) {
    const packed = Object.fromEntries(Object.entries(E.OUTCOMES).map(([name, hex]) => [name, E.packHex(hex)]));
    const counts = {};
    for (let row = 0; row < store.rows; row++) {
      const outcome = store.outcome(row);
      colors[row] = packed[outcome];
      counts[outcome] = (counts[outcome] || 0) + 1;
    }
    const kinds = store.info.has_base
      ? [["right", "both right", "both-right"], ["gain", "only Elastic right", "gain"], ["loss", "only the base right", "loss"], ["wrong", "both wrong", "both-wrong"]]
      : [["right", "right", "right"], ["wrong", "wrong", "wrong"]];
    E.clear(place, kinds.map(([kind, text, outcome]) => swatch(E.OUTCOMES[kind], `${text} ${E.count(counts[kind] || 0)}`, state.outcome === outcome,
      () => set({ outcome: state.outcome === outcome ? "all" : outcome }))));
  }

  function shades(store, colors, place, key) {
    const block = /^b\d+$/.test(key) ? +key.slice(1) : -1;
    const value = E.valueOf(store, key);
    let range = block >= 0 ? store.blocks[block] : key === "mean" ? store.info.mean_range : { low: 0, high: 1 };
    if (key === "size") range = { low: 0, high: store.size_values.reduce((most, size) => Math.max(most, size), 0) };
    for (let row = 0; row < store.rows; row++) colors[row] = E.ramp[E.level(value(row), range.low, range.high)];
    const canvas = el("canvas", { class: "ribbon", width: 64, height: 1 });
    E.paintRibbon(canvas, Array.from({ length: 64 }, (_, i) => Math.round((i * 255) / 63)));
    E.clear(place, el("span", {}, E.number(range.low, 2)), canvas, el("span", {}, E.number(range.high, 2)));
  }

  // Fill `colors` (one a row) and the legend for the colouring `state.color`; `set` changes the state.
  E.paintMap = function (store, colors, state, set) {
    const place = E.byId("map-legend");
    const focused = place.contains(document.activeElement) ? [...place.children].indexOf(document.activeElement) : -1;
    if (state.color === "category") classes(store, colors, place, state, set);
    else if (state.color === "outcome") outcomes(store, colors, place, state, set);
    else shades(store, colors, place, state.color);
    place.children[focused]?.focus();
  };
})(window.ElasticExplorer);
