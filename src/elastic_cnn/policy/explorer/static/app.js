// The page: reads the state, filters and sorts, and keeps grid, map and dialogs in step.
"use strict";
(function (E) {
  const { byId, el } = E;

  function options(select, list) {
    E.clear(select, list.map(([value, text]) => el("option", { value }, text)));
  }

  class App {
    constructor(store) {
      this.store = store;
      this.rows = new Uint32Array(0);
      this.matching = null;
      this.marks = [];
      this.typed = null; // in the search field and not yet searched for
      this.timing = { filter: 0, sort: 0 };
      const open = (row) => this.state.set({ photo: row, pair: [], classes: [] });
      const mark = (row) => this.mark(row);
      this.#controls();
      this.grid = new E.Grid(store, { open, mark });
      this.map = new E.Map(store, { open, view: (view) => this.state.set({ view }), lasso: (lasso) => this.state.set({ lasso }) });
      this.detail = new E.Detail(store, {
        open, mark, step: (by) => this.step(by), category: (category) => this.state.set({ category, photo: -1 }),
        closed: () => this.state.set({ photo: -1 }),
      });
      this.compare = new E.Compare(store, {
        open, classes: (classes) => this.state.set({ classes }), closed: () => this.state.set({ pair: [], classes: [] }),
      });
      this.state = new E.State(store, (changed) => this.update(changed));
      this.#listen();
      this.update(null);
    }

    #controls() {
      const { store } = this;
      const { info } = store;
      byId("subtitle").textContent = [info.network, `${E.count(store.rows)} photos`, `${store.blocks.length} elastic blocks`].filter(Boolean).join(" \u00b7 ");
      document.title = `Scale policies of ${info.network || "a network"}`;
      const blocks = store.blocks.map((block, i) => [`b${i}`, `block ${i + 1}: ${E.blockTitle(block)}`]);
      options(byId("filter-class"), [["", "all classes"], ...E.classOptions(store).map((name) => [name, name])]);
      const base = info.has_base ? [["base", "base network's confidence"]] : [];
      options(byId("sort-key"), [["table", "order of the table"], ["category", "category, by name"], ["category-mean", "category, by mean score"],
        ["prediction", "prediction"], ["confidence", "confidence"], ...base, ["mean", "mean score"], ...blocks]);
      const known = info.has_outcomes ? [["outcome", "outcome"]] : [];
      options(byId("map-color"), [["category", info.has_labels ? "class" : "prediction"], ...known, ["confidence", "confidence"], ["mean", "mean score"], ...blocks]);
      for (const option of byId("filter-outcome").options) {
        option.hidden = option.disabled = (!info.has_outcomes && option.value !== "all") || (!info.has_base && ["gain", "loss"].includes(option.value));
      }
      byId("map-title").textContent = info.map.method;
      byId("map-note").textContent = info.map.note;
      E.paintRibbon(byId("legend"), Array.from({ length: 64 }, (_, i) => 255 - Math.round((i * 255) / 63)));
    }

    #listen() {
      const set = (patch) => this.state.set(patch);
      const on = (id, kind, action) => byId(id).addEventListener(kind, action);
      const search = E.after(60, () => {
        if (this.typed === null) return;
        const query = this.typed;
        this.typed = null;
        set({ query });
      });
      on("search", "input", () => {
        this.typed = byId("search").value;
        search();
      });
      on("filter-outcome", "change", (event) => set({ outcome: event.target.value }));
      on("filter-class", "change", (event) => set({ category: event.target.value }));
      on("confidence-low", "input", (event) => set({ low: Math.min(+event.target.value, this.state.now.high) }));
      on("confidence-high", "input", (event) => set({ high: Math.max(+event.target.value, this.state.now.low) }));
      on("sort-key", "change", (event) => set({ sort: event.target.value }));
      on("sort-direction", "click", () => set({ descending: !this.state.now.descending }));
      on("ribbon-scale", "change", (event) => set({ ribbon: event.target.value }));
      for (const id of ["reset", "empty-clear"]) on(id, "click", () => { this.typed = null; this.state.clear(); });
      on("toggle-map", "click", () => set({ map: !this.state.now.map }));
      on("toggle-theme", "click", () => this.#turnTheme());
      on("open-help", "click", () => byId("help").showModal());
      on("open-classes", "click", () => this.#openClasses());
      on("map-color", "change", (event) => set({ color: event.target.value }));
      on("map-photos", "change", (event) => set({ photos: event.target.checked }));
      on("map-home", "click", () => set({ view: [] }));
      on("map-clear", "click", () => set({ lasso: [] }));
      on("map-window", "click", () => set({ lasso: this.map.projection.window() }));
      on("map-lasso", "click", () => this.#lassoMode(!this.map.lassoMode));
      on("tray-compare", "click", () => set({ pair: [...this.marks] }));
      on("tray-clear", "click", () => { this.marks = []; this.#tray(); });
      on("skip", "click", (event) => { event.preventDefault(); byId("grid").focus(); });
      for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
      document.addEventListener("keydown", (event) => this.#key(event));
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.map.draw());
    }

    #key(event) {
      if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
      const { target } = event;
      if (event.key === "Escape" && target === byId("search")) byId("grid").focus();
      if (["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName)) return;
      const keys = {
        "/": () => byId("search").focus(), "?": () => byId("help").showModal(), m: () => this.state.set({ map: !this.state.now.map }),
        t: () => this.#turnTheme(), s: () => this.state.set({ descending: !this.state.now.descending }),
      };
      const action = keys[event.key.toLowerCase()];
      if (!action) return;
      event.preventDefault();
      action();
    }

    #lassoMode(on) {
      this.map.lassoMode = on;
      byId("map-lasso").setAttribute("aria-pressed", String(on));
      byId("map").classList.toggle("lassoing", on);
    }

    #turnTheme() {
      const { theme } = this.state.now;
      const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      this.state.set({ theme: dark ? "light" : "dark" });
    }

    #openClasses() {
      const names = E.classOptions(this.store);
      const first = this.state.now.category && names.includes(this.state.now.category) ? this.state.now.category : names[0];
      if (names.length) this.state.set({ classes: [first, names.find((name) => name !== first) || first], photo: -1, pair: [] });
    }

    mark(row) {
      this.marks = this.marks.includes(row) ? this.marks.filter((other) => other !== row) : [...this.marks.slice(-1), row];
      this.#tray();
      if (this.state.now.photo >= 0) this.#dialogs();
    }

    #tray() {
      const { store, marks } = this;
      byId("tray").hidden = !marks.length;
      E.clear(byId("tray-items"), marks.map((row) => E.el("span", { class: "marked-item" }, E.thumb(store, row))),
        el("span", {}, marks.length === 1 ? "Mark one more photo (C, or Ctrl and click) to compare." : "Two photos marked."));
      byId("tray-compare").disabled = marks.length !== 2;
      this.grid.marked = new Set(marks);
      this.grid.refresh();
    }

    step(by) {
      const at = this.rows.indexOf(this.state.now.photo);
      const next = at < 0 ? 0 : at + by;
      if (next >= 0 && next < this.rows.length) this.state.set({ photo: this.rows[next] });
    }

    // Bring the page to the state; `changed` holds the fields that differ, null for all.
    update(changed) {
      const any = (...fields) => !changed || fields.some((field) => changed.has(field));
      const { now } = this.state || {};
      if (any("theme")) document.documentElement.dataset.theme = now.theme;
      if (any("map")) {
        byId("side").hidden = !now.map;
        byId("toggle-map").setAttribute("aria-pressed", String(now.map));
      }
      const filtered = any("query", "outcome", "category", "low", "high", "lasso");
      const sorted = filtered || any("sort", "descending");
      if (filtered) this.matching = this.#timed("filter", () => E.filter(this.store, now));
      if (sorted) this.rows = this.#timed("sort", () => E.sort(this.store, this.matching, now.sort, now.descending));
      if (any("sort")) this.grid.valueOf = this.#valueOf(now.sort);
      if (any("ribbon")) this.grid.scale = now.ribbon;
      if (sorted) this.grid.show(this.rows, false);
      else if (any("ribbon")) this.grid.refresh();
      this.#syncControls(now);
      this.#updateMap(any, filtered, now);
      if (filtered || any("ribbon")) this.#meanChart(now);
      if (any("photo", "pair", "classes", "ribbon")) this.#dialogs();
    }

    #timed(name, action) {
      const before = performance.now();
      const result = action();
      this.timing[name] = performance.now() - before;
      return result;
    }

    #valueOf(key) {
      const { store } = this;
      if (/^b\d+$/.test(key)) return (row) => E.number(store.score(row, +key.slice(1)));
      if (key === "mean" || key === "category-mean") return (row) => E.number(store.means[row]);
      if (key === "base") return (row) => E.percent(store.base_confidence[row], 0);
      return (row) => E.percent(store.confidence[row], 0);
    }

    #updateMap(any, filtered, now) {
      const { map } = this;
      if (any("color")) {
        this.#colors(now.color);
        byId("map-color").value = now.color;
      }
      if (any("view")) map.projection.set(now.view.length ? now.view : [0.5, 0.5, 1]);
      map.polygon = now.lasso;
      map.withPhotos = now.photos;
      map.selected = now.photo;
      byId("map-photos").checked = now.photos;
      byId("map-clear").disabled = !now.lasso.length;
      if (any("lasso") && now.lasso.length) this.#lassoMode(false);
      if (filtered) map.setMembers(this.matching);
      map.draw();
    }

    #colors(key) {
      const { store, map } = this;
      const legend = byId("map-legend");
      const item = (color, text) => el("span", { class: "swatch" }, el("i", { style: { background: color } }), el("bdi", {}, text));
      if (key === "category") {
        const place = new Map(store.classes.map((name, i) => [name, i]));
        for (let row = 0; row < store.rows; row++) map.colors[row] = E.categoryPacked(place.get(store.category(row)) ?? -1);
        const shown = store.classes.slice(0, 12).map((name, i) => item(E.categoryCss(i), store.names[name]));
        E.clear(legend, shown, store.classes.length > 12 && el("span", { class: "note" }, `and ${E.count(store.classes.length - 12)} more`));
      } else if (key === "outcome") {
        const colors = Object.fromEntries(Object.entries(E.OUTCOMES).map(([name, hex]) => [name, E.packHex(hex)]));
        for (let row = 0; row < store.rows; row++) map.colors[row] = colors[store.outcome(row)];
        const gain = store.info.has_base ? [item(E.OUTCOMES.gain, "Elastic right, base wrong")] : [];
        E.clear(legend, item(E.OUTCOMES.right, "right"), item(E.OUTCOMES.wrong, "wrong"), gain);
      } else {
        this.#shades(key, legend);
      }
    }

    #shades(key, legend) {
      const { store, map } = this;
      const block = /^b\d+$/.test(key) ? +key.slice(1) : -1;
      const value = block >= 0 ? (row) => store.score(row, block) : (row) => (key === "mean" ? store.means[row] : store.confidence[row]);
      const range = block >= 0 ? store.blocks[block] : key === "mean" ? store.info.mean_range : { low: 0, high: 1 };
      for (let row = 0; row < store.rows; row++) map.colors[row] = E.ramp[E.level(value(row), range.low, range.high)];
      const canvas = el("canvas", { class: "ribbon", width: 64, height: 1 });
      E.paintRibbon(canvas, Array.from({ length: 64 }, (_, i) => Math.round((i * 255) / 63)));
      E.clear(legend, el("span", {}, E.number(range.low, 2)), canvas, el("span", {}, E.number(range.high, 2)));
    }

    #meanChart(now) {
      const { store, matching } = this;
      byId("mean-note").textContent = matching.length === store.rows ? "of all photos" : `of the ${E.count(matching.length)} photos shown`;
      if (!matching.length) return E.clear(byId("mean-chart"));
      const series = [{ name: matching.length === store.rows ? "all photos" : "photos shown", policy: E.summary(store, matching).mean, kind: "" }];
      return E.clear(byId("mean-chart"), E.policyChart(store, series, { scale: now.ribbon, width: 460 }));
    }

    #syncControls(now) {
      const values = { search: this.typed ?? now.query, "filter-outcome": now.outcome, "filter-class": now.category, "confidence-low": now.low,
        "confidence-high": now.high, "sort-key": now.sort, "ribbon-scale": now.ribbon };
      for (const [id, value] of Object.entries(values)) if (byId(id).value !== String(value)) byId(id).value = value;
      byId("confidence-text").textContent = `${now.low} to ${now.high}%`;
      byId("sort-direction").textContent = now.descending ? "\u2193" : "\u2191";
      byId("sort-direction").setAttribute("aria-label", now.descending ? "Descending; turn to ascending" : "Ascending; turn to descending");
      byId("reset").disabled = !(now.query || now.outcome !== "all" || now.category || now.low > 0 || now.high < 100 || now.lasso.length);
      const all = this.rows.length === this.store.rows;
      byId("status").textContent = all ? `${E.count(this.rows.length)} photos` : `${E.count(this.rows.length)} of ${E.count(this.store.rows)} photos`;
    }

    #dialogs() {
      const { photo, pair, classes, ribbon } = this.state.now;
      if (photo >= 0) {
        this.compare.hide();
        this.detail.show(photo, { scale: ribbon, marked: this.marks.includes(photo) });
        this.grid.moveToRow(photo);
        return;
      }
      this.detail.hide();
      if (pair.length) this.compare.photos(pair, ribbon);
      else if (classes.length) this.compare.classes(classes, ribbon);
      else this.compare.hide();
    }
  }

  function start() {
    const { table, columns, scores, paths, live } = E.received;
    let store = null;
    if (table) {
      store = new E.Store(table, columns, scores, paths);
      E.app = new App(store);
      store.prepareText();
    } else {
      document.body.classList.add("no-table");
    }
    if (live) {
      E.liveView = new E.Live(live, store);
      byId("open-live").hidden = false;
      byId("open-live").addEventListener("click", () => E.liveView.open());
      if (!store) {
        byId("subtitle").textContent = live.network;
        E.liveView.open();
      }
    }
    document.documentElement.dataset.ready = "1";
    requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("cards"))); // for the benchmark: the first frame was painted
  }
  start();
})(window.ElasticExplorer);
