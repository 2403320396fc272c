// The conditions that hold, in words, each dropped by a click.
"use strict";
(function (E) {
  const { el } = E;

  // [[words, what drops it]]
  function conditions(store, state) {
    const { names } = store;
    const chosen = (id) => E.byId(id).selectedOptions[0]?.text || "";
    const titles = new Map(E.scoreKeys(store));
    const [label, guess] = state.cell;
    return [
      state.query && [`search: ${state.query}`, { query: "" }],
      state.outcome !== "all" && [chosen("filter-outcome"), { outcome: "all" }],
      state.category && [state.category, { category: "" }],
      ...state.among.map((name) => [names[name], { among: state.among.filter((other) => other !== name) }]),
      (state.low > 0 || state.high < 100) && [`confidence ${state.low} to ${state.high}%`, { low: 0, high: 100 }],
      state.copies && ["copies", { copies: false }],
      state.tag && [`tag ${state.tag}`, { tag: "" }],
      state.cell.length > 0 && [label === guess ? `${names[label]}, right` : `${names[label]} taken for ${names[guess]}`, { cell: [] }],
      state.lasso.length > 0 && ["region of the map", { lasso: [] }],
      ...state.brush.map((brush) => [`${titles.get(brush.key)}: ${E.number(brush.low)} to ${E.number(brush.high)}`,
        { brush: state.brush.filter((other) => other !== brush) }]),
    ].filter(Boolean);
  }

  // `set` changes the state
  E.showConditions = function (store, state, set) {
    const place = E.byId("conditions");
    const list = conditions(store, state);
    const focused = [...place.querySelectorAll("button")].indexOf(document.activeElement);
    place.hidden = !list.length;
    E.clear(place, list.map(([words, patch]) => el("li", {}, el("button", { type: "button", class: "chip", title: "Drop this condition", onclick: () => set(patch) },
      el("bdi", {}, words), " \u00d7"))));
    if (focused < 0) return;
    const left = place.querySelectorAll("button");
    (left[Math.min(focused, left.length - 1)] || E.byId("grid")).focus();
  };
})(window.ElasticExplorer);
