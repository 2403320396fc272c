// The page: controls, keys, and keeping grid, map, charts and dialogs in step.
"use strict";
(function (E) {
  const { byId, el } = E;
  const NARROW = "(max-width: 700px)";

  function options(select, list) {
    E.clear(select, list.map(([value, text]) => el("option", { value }, text)));
  }

  class App {
    constructor(store) {
      this.store = store;
      this.rows = new Uint32Array(0);
      this.matching = null;
      this.matcher = new E.Matcher(store);
      this.marks = [];
      this.typed = null; // in the search field and not yet searched for
      this.timing = { filter: 0, sort: 0 };
      document.body.classList.toggle("no-policy", !store.hasPolicy);
      const set = (patch, quiet) => this.state.set(patch, quiet);
      const open = (row) => set({ photo: row, pair: [], classes: [] });
      const mark = (row) => this.mark(row);
      const tag = (row) => this.selection.toggle(row);
      this.#controls();
      this.grid = new E.Grid(store, { open, mark, tag });
      this.map = new E.Map(store, { open, view: (view) => set({ view }), lasso: (lasso) => set({ lasso }) });
      this.detail = new E.Detail(store, {
        open, mark, tag, step: (by) => this.step(by), category: (category) => set({ category, photo: -1 }), closed: () => set({ photo: -1 }),
      });
      this.compare = new E.Compare(store, { open, classes: (classes) => set({ classes }), closed: () => set({ pair: [], classes: [] }, true) });
      this.histogram = new E.Histogram(store, { chart: (chart) => set({ chart }), brush: (brush, quiet) => set({ brush }, quiet) });
      this.confusion = new E.Confusion(store, (cell) => set({ cell }));
      this.slider = new E.RangeSlider("confidence", "confidence, per cent", { min: 0, max: 100, step: 1, change: (low, high) => set({ low, high }) });
      byId("confidence").append(this.slider.element);
      this.state = new E.State(store, (changed) => this.update(changed));
      if (matchMedia(NARROW).matches && !location.hash.includes("map=")) this.state.now.map = false;
      this.selection = new E.Selection(store, {
        rows: () => this.rows, tag: () => this.state.now.tag, filter: (name) => set({ tag: name }), changed: () => this.#tagged(),
      });
      this.#listen();
      E.intro(store);
      this.update(null);
    }

    #controls() {
      const { store } = this;
      const { info } = store;
      const blocks = store.hasPolicy ? `${store.blocks.length} elastic blocks` : "no elastic blocks";
      const sampled = info.sampled_of ? `${E.count(store.rows)} photos, a random sample of ${E.count(info.sampled_of)}` : `${E.count(store.rows)} photos`;
      byId("subtitle").textContent = [info.network, sampled, blocks].filter(Boolean).join(" \u00b7 ");
      byId("subtitle").title = byId("subtitle").textContent;
      byId("title").textContent = store.hasPolicy ? "Scale policies" : "Predictions";
      document.title = `${byId("title").textContent} of ${info.network || "a network"}`;
      options(byId("filter-class"), [["", "all classes"], ...E.classOptions(store).map((name) => [name, name])]);
      const scores = E.scoreKeys(store);
      options(byId("sort-key"), [["table", "order of the table"], ["category", "category, by name"], ...(store.hasPolicy ? [["category-mean", "category, by mean score"]] : []),
        ["prediction", "prediction"], ...(store.copyCount ? [["copies", "copies side by side"]] : []), ...scores]);
      byId("filter-copies").closest("label").hidden = !store.copyCount;
      byId("copies-text").textContent = `copies (${E.count(store.copyCount)})`;
      options(byId("map-color"), [["category", info.has_labels ? "class" : "prediction"], ...(info.has_outcomes ? [["outcome", "outcome"]] : []), ...scores]);
      for (const option of byId("filter-outcome").options) {
        const pairs = !["all", "right", "wrong"].includes(option.value);
        option.hidden = option.disabled = (!info.has_outcomes && option.value !== "all") || (!info.has_base && pairs);
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
      const selects = { "filter-outcome": "outcome", "filter-class": "category", "filter-tag": "tag", "sort-key": "sort", "ribbon-scale": "ribbon", "map-color": "color" };
      for (const [id, field] of Object.entries(selects)) on(id, "change", (event) => set({ [field]: event.target.value }));
      on("filter-copies", "change", (event) => set({ copies: event.target.checked, ...(event.target.checked ? { sort: "copies", descending: false } : {}) }));
      on("sort-direction", "click", () => set({ descending: !this.state.now.descending }));
      for (const id of ["reset", "empty-clear"]) on(id, "click", () => { this.typed = null; this.state.clear(); });
      on("toggle-map", "click", () => set({ map: !this.state.now.map }));
      on("toggle-filters", "click", () => byId("toggle-filters").setAttribute("aria-expanded", String(document.body.classList.toggle("with-filters"))));
      on("toggle-theme", "click", () => this.#turnTheme());
      on("open-help", "click", () => byId("help").showModal());
      on("open-classes", "click", () => this.#openClasses());
      on("open-selection", "click", () => this.selection.open());
      for (const field of ["photos", "names"]) on(`map-${field}`, "change", (event) => set({ [field]: event.target.checked }));
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
        t: () => this.#turnTheme(), s: () => this.state.set({ descending: !this.state.now.descending }), e: () => this.selection.open(),
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

    // After tags changed: what is shown, if a tag decides on it, and every place that tells them.
    #tagged() {
      this.state.set({ tagged: this.state.now.tagged + 1 }, true);
      this.grid.refresh();
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
      const filtered = any(...E.FILTER_FIELDS) && (any(...E.FILTER_FIELDS.filter((field) => field !== "tagged")) || Boolean(now.tag));
      const sorted = filtered || any("sort", "descending");
      if (filtered) this.matching = this.#timed("filter", () => this.matcher.update(now, changed));
      if (sorted) this.rows = this.#timed("sort", () => E.sort(this.store, this.matching, now.sort, now.descending));
      if (any("sort")) this.grid.valueOf = this.#valueOf(now.sort);
      if (any("ribbon")) this.grid.shades = now.ribbon;
      if (sorted) this.grid.show(this.rows, false);
      else if (any("ribbon")) this.grid.refresh();
      this.#syncControls(now);
      this.#updateMap(any, filtered, now);
      if (filtered || any("ribbon")) this.#meanChart(now);
      if (filtered || any("chart", "map")) this.#charts();
      if (any("photo", "pair", "classes", "ribbon")) this.#dialogs();
    }

    // Histogram and matrix come a frame later, so that the photos are there first.
    #charts = E.everyFrame(() => {
      const { now } = this.state;
      if (!now.map) return;
      this.histogram.show(now, this.matcher);
      this.confusion.show(now, this.matcher);
    });

    #timed(name, action) {
      const before = performance.now();
      const result = action();
      this.timing[name] = performance.now() - before;
      return result;
    }

    #valueOf(key) {
      const { store } = this;
      const value = E.valueOf(store, key === "category-mean" ? "mean" : key);
      if (/^(b\d+|mean|category-mean|size)$/.test(key)) return (row) => E.number(value(row), key === "size" ? 0 : 3);
      return (row) => E.percent(value(row), 0);
    }

    #updateMap(any, filtered, now) {
      const { map } = this;
      if (any("color", "outcome", "among")) E.paintMap(this.store, map.colors, now, (patch) => this.state.set(patch));
      byId("map-color").value = now.color;
      if (any("view")) map.projection.set(now.view.length ? now.view : [0.5, 0.5, 1]);
      map.polygon = now.lasso;
      map.withPhotos = now.photos;
      map.withNames = now.names;
      map.selected = now.photo;
      for (const field of ["photos", "names"]) byId(`map-${field}`).checked = now[field];
      byId("map-clear").disabled = !now.lasso.length;
      if (any("lasso") && now.lasso.length) this.#lassoMode(false);
      if (filtered) map.setMembers(this.matching);
      map.draw();
    }

    #meanChart(now) {
      const { store, matching } = this;
      if (!store.hasPolicy) return undefined;
      byId("mean-note").textContent = matching.length === store.rows ? "of all photos" : `of the ${E.count(matching.length)} photos shown`;
      if (!matching.length) return E.clear(byId("mean-chart"));
      const series = [{ name: matching.length === store.rows ? "all photos" : "photos shown", policy: E.summary(store, matching).mean, kind: "" }];
      return E.clear(byId("mean-chart"), E.policyChart(store, series, { scale: now.ribbon, width: 460 }));
    }

    #syncControls(now) {
      const values = { search: this.typed ?? now.query, "filter-outcome": now.outcome, "filter-class": now.category, "sort-key": now.sort, "ribbon-scale": now.ribbon };
      for (const [id, value] of Object.entries(values)) if (byId(id).value !== String(value)) byId(id).value = value;
      this.slider.set(now.low, now.high);
      this.selection.refresh();
      byId("confidence-text").textContent = `${now.low} to ${now.high}%`;
      byId("sort-direction").textContent = now.descending ? "\u2193" : "\u2191";
      byId("sort-direction").setAttribute("aria-label", now.descending ? "Descending; turn to ascending" : "Ascending; turn to descending");
      byId("filter-copies").checked = now.copies;
      byId("reset").disabled = !this.state.isFiltered;
      E.showConditions(this.store, now, (patch) => this.state.set(patch));
      const all = this.rows.length === this.store.rows;
      byId("status").textContent = all ? `${E.count(this.rows.length)} photos` : `${E.count(this.rows.length)} of ${E.count(this.store.rows)} photos`;
      byId("accuracy").textContent = E.accuracyText(this.store, this.matching);
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
