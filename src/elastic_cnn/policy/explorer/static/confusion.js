// Which classes are taken for which: a matrix of the photos that all other conditions leave, and the commonest mistakes.
// A cell, or a mistake in the list, keeps its photos.
"use strict";
(function (E) {
  const { el, svg } = E;
  const MOST = 16; // classes in the matrix: those with most mistakes
  const LISTED = 8;
  const CELL = 22;
  const LETTER = 6.2; // pixels of a letter of a name

  const short = (name, most = 14) => (name.length > most ? `${name.slice(0, most - 1)}\u2026` : name);

  E.Confusion = class {
    constructor(store, action) {
      this.store = store;
      this.action = action;
      this.place = E.byId("confusion");
      this.section = E.byId("confusion-section");
      this.section.hidden = store.info.several || !store.info.has_outcomes;
      this.section.addEventListener("toggle", () => this.show(...this.latest));
      this.latest = [];
    }

    // {label * names + prediction: photos}
    counts(passes) {
      const { store } = this;
      const counts = new Map();
      for (let row = 0; row < store.rows; row++) {
        if (!passes(row)) continue;
        const label = store.first("label", row);
        const guess = store.first("prediction", row);
        if (label < 0 || guess < 0) continue;
        const key = label * store.names.length + guess;
        counts.set(key, (counts.get(key) || 0) + 1);
      }
      return counts;
    }

    show(state, matcher) {
      this.latest = [state, matcher];
      if (!state || this.section.hidden || !this.section.open) return;
      const { store } = this;
      const width = store.names.length;
      const cells = [...this.counts(matcher.without("cell"))].map(([key, count]) => ({ label: Math.floor(key / width), guess: key % width, count }));
      const wrong = cells.filter(({ label, guess }) => label !== guess).sort((a, b) => b.count - a.count || a.label - b.label || a.guess - b.guess);
      const names = this.#names(cells, wrong);
      const chosen = ({ label, guess }) => state.cell.length && state.cell[0] === label && state.cell[1] === guess;
      const choose = (cell) => this.action(chosen(cell) ? [] : [cell.label, cell.guess]);
      E.clear(this.place,
        this.#matrix(names, cells, chosen, choose),
        el("ol", { class: "mistakes" }, ...wrong.slice(0, LISTED).map((cell) => el("li", {}, el("button", {
          type: "button", "aria-pressed": String(Boolean(chosen(cell))), onclick: () => choose(cell),
        }, el("bdi", {}, store.names[cell.label]), " taken for ", el("bdi", {}, store.names[cell.guess]), ` ${E.count(cell.count)}`)))),
        !wrong.length && el("p", { class: "note" }, "No mistake among these photos."),
        state.cell.length > 0 && el("button", { type: "button", id: "cell-clear", onclick: () => this.action([]) }, "All cells"),
        store.classes.length > MOST && el("p", { class: "note" }, `The ${names.length} classes with most mistakes, of ${E.count(store.classes.length)}.`));
    }

    #names(cells, wrong) {
      const { store } = this;
      const present = [...new Set(cells.flatMap(({ label, guess }) => [label, guess]))];
      if (present.length > MOST) {
        const mistakes = new Map();
        for (const { label, guess, count } of wrong) for (const name of [label, guess]) mistakes.set(name, (mistakes.get(name) || 0) + count);
        present.sort((a, b) => (mistakes.get(b) || 0) - (mistakes.get(a) || 0) || a - b);
      }
      return present.slice(0, MOST).sort((a, b) => store.rank[a] - store.rank[b]);
    }

    #matrix(names, cells, chosen, choose) {
      const { store } = this;
      const place = new Map(names.map((name, i) => [name, i]));
      const totals = new Map();
      for (const { label, count } of cells) totals.set(label, (totals.get(label) || 0) + count);
      const longest = names.reduce((most, name) => Math.max(most, short(store.names[name]).length), 0);
      const margin = Math.max(56, 14 + LETTER * longest); // for the names
      const side = margin + names.length * CELL;
      const parts = names.flatMap((name, i) => {
        const at = margin + (i + 0.5) * CELL;
        return [
          svg("text", { class: "tick-text", x: margin - 6, y: at + 4, "text-anchor": "end" }, short(store.names[name]), svg("title", {}, store.names[name])),
          svg("text", { class: "tick-text", "text-anchor": "start", transform: `translate(${at + 4},${margin - 6}) rotate(-60)` }, short(store.names[name]), svg("title", {}, store.names[name])),
        ];
      });
      for (const cell of cells) {
        const [line, column] = [place.get(cell.label), place.get(cell.guess)];
        if (line === undefined || column === undefined) continue;
        const share = cell.count / totals.get(cell.label);
        const text = `${E.count(cell.count)} of ${E.count(totals.get(cell.label))} photos of ${store.names[cell.label]} taken for ${store.names[cell.guess]}`;
        parts.push(svg("rect", {
          class: `cell${line === column ? " diagonal" : ""}${chosen(cell) ? " chosen" : ""}`, x: margin + column * CELL + 1, y: margin + line * CELL + 1,
          width: CELL - 2, height: CELL - 2, "fill-opacity": 0.08 + 0.92 * share, onclick: () => choose(cell),
        }, svg("title", {}, text)));
        parts.push(svg("text", { class: `cell-text${share > 0.5 ? " on" : ""}`, x: margin + (column + 0.5) * CELL, y: margin + (line + 0.5) * CELL + 3.5, "text-anchor": "middle" }, cell.count > 999 ? "" : String(cell.count)));
      }
      parts.push(svg("text", { class: "axis", x: 2, y: 12 }, "rows: class"), svg("text", { class: "axis", x: 2, y: 26 }, "columns: prediction"));
      return svg("svg", { viewBox: `0 0 ${Math.max(side + 40, 300)} ${side}`, class: "matrix", role: "img", "aria-label": "Confusion matrix; the commonest mistakes follow as buttons" }, ...parts);
    }
  };
})(window.ElasticExplorer);
