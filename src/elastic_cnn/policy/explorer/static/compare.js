// Two photos or two classes side by side.
"use strict";
(function (E) {
  const { el } = E;
  const SAMPLE = 8;

  function rowsOf(store, name) {
    const index = store.names.indexOf(name);
    return Uint32Array.from(store.means.keys()).filter((row) => store.isOf(row, index));
  }

  const share = (store, rows) => {
    const known = rows.filter((row) => store.correct[row] < 2);
    return known.length ? known.reduce((sum, row) => sum + store.correct[row], 0) / known.length : NaN;
  };

  // "A looks finer at block X" in words, for the reader and the screen reader alike.
  function difference(store, first, second) {
    const apart = store.blocks.map((block, i) => (block.deviation > 0 ? (first.policy[i] - second.policy[i]) / block.deviation : 0));
    const most = apart.reduce((best, value, i) => (Math.abs(value) > Math.abs(apart[best]) ? i : best), 0);
    if (Math.abs(apart[most]) < 0.05) return "The two policies are alike at every block.";
    const [finer, coarser] = apart[most] > 0 ? [first, second] : [second, first];
    const far = Math.sqrt(apart.reduce((sum, value) => sum + value * value, 0) / apart.length);
    return el("p", { class: "summary" }, "They differ most at ", el("strong", {}, E.blockTitle(store.blocks[most])), ", where ",
      el("bdi", {}, finer.name), " looks finer than ", el("bdi", {}, coarser.name),
      ` (by ${E.number(Math.abs(apart[most]), 2)} deviations of all photos; ${E.number(far, 2)} over all blocks).`);
  }

  E.Compare = class {
    constructor(store, actions) {
      this.store = store;
      this.actions = actions;
      this.dialog = E.byId("compare");
      this.dialog.addEventListener("close", () => actions.closed());
    }

    photos(pair, scale) {
      const { store } = this;
      const series = pair.map((row, i) => ({
        name: `${"AB"[i]}: ${store.isKnown ? store.labelText(row) : store.predictionText(row)}`,
        short: "AB"[i], policy: store.policy(row), kind: "ab"[i],
      }));
      const columns = pair.map((row, i) => el("div", {}, el("h3", { class: `key ${series[i].kind}`, dir: "auto" }, series[i].name),
        E.pictureOf(store, row), store.hasPolicy && E.ribbon(store, series[i].policy, scale), E.topClasses(store, row), E.facts(store, row)));
      this.#show("Two photos", null, columns, series);
    }

    classes(names, scale) {
      const { store } = this;
      const sets = names.map((name) => rowsOf(store, name));
      const series = names.map((name, i) => ({
        name, short: name, policy: E.summary(store, sets[i]).mean, kind: "ab"[i],
      }));
      const columns = names.map((name, i) => this.#class(name, sets[i], series[i], scale));
      this.#show("Two classes", this.#choice(names), columns, series);
    }

    #class(name, rows, series, scale) {
      const { store } = this;
      const typical = E.nearest(store, store.hasPolicy ? series.policy : E.middle(store, rows), SAMPLE, rows).map((item) => item.row);
      const { deviation } = E.summary(store, rows);
      const mean = series.policy.reduce((sum, value) => sum + value, 0) / series.policy.length;
      return el("div", {}, el("h3", { class: `key ${series.kind}`, dir: "auto" }, name), store.hasPolicy && E.ribbon(store, series.policy, scale),
        el("dl", { class: "facts" }, el("dt", {}, "photos"), el("dd", {}, E.count(rows.length)),
          el("dt", {}, "right"), el("dd", {}, E.percent(share(store, rows))),
          ...(store.hasPolicy ? [el("dt", {}, "mean score"), el("dd", {}, E.number(mean, 4)),
            el("dt", {}, "spread"), el("dd", {}, `${E.number(deviation.reduce((sum, value) => sum + value, 0) / deviation.length, 4)} (deviation within the class, mean of the blocks)`)] : [])),
        el("p", { class: "note" }, store.hasPolicy ? "Most typical policies of the class:" : "Most typical photos of the class:"),
        E.strip(store, typical, scale, this.actions.open, (row) => (store.hasPolicy ? `mean ${E.number(store.means[row])}` : E.percent(store.confidence[row], 0))));
    }

    #choice(names) {
      const select = (i) => el("select", {
        id: `compare-class-${i}`, "aria-label": `Class ${"AB"[i]}`,
        onchange: (event) => { const next = [...names]; next[i] = event.target.value; this.actions.classes(next); },
      }, ...E.classOptions(this.store).map((name) => el("option", { value: name, selected: name === names[i] }, name)));
      return el("div", { class: "choice" }, select(0), " and ", select(1));
    }

    #show(title, choice, columns, series) {
      const { store } = this;
      const focused = this.dialog.contains(document.activeElement) ? document.activeElement.id : "";
      E.clear(this.dialog,
        el("div", { class: "dialog-head" }, el("h2", { id: "compare-title" }, title), choice,
          el("button", { type: "button", class: "close", id: "compare-close", onclick: () => this.dialog.close() }, "Close")),
        store.hasPolicy && [difference(store, series[0], series[1]), E.policyChart(store, series, { width: 900 }), E.scoreTable(store, series)],
        el("div", { class: "two even" }, ...columns));
      if (!this.dialog.open) this.dialog.showModal();
      E.byId(focused || "compare-close")?.focus();
    }

    hide() {
      if (this.dialog.open) this.dialog.close();
    }
  };

  // Names of classes in alphabetical order.
  E.classOptions = (store) => store.classes.slice().sort((a, b) => store.rank[a] - store.rank[b]).map((name) => store.names[name]);
})(window.ElasticExplorer);
