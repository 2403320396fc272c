// Tags on photos, kept by this browser, and files of a selection: a table of the photos shown, or a list of their paths.
"use strict";
(function (E) {
  const { el } = E;
  const MOST_NAME = 60;

  // {tag: set of rows}, under a name of the table's own in the browser's storage (where it has none: until the page closes)
  E.Tags = class {
    constructor(store) {
      const { paths } = store;
      this.place = `elastic-explorer:tags:${store.info.network}:${store.rows}:${paths[0]}:${paths[paths.length - 1]}`;
      this.sets = new Map();
      this.current = "check";
      const kept = E.recall(this.place);
      for (const [name, rows] of Object.entries(kept && typeof kept === "object" ? kept : {})) {
        if (Array.isArray(rows)) this.sets.set(name.slice(0, MOST_NAME), new Set(rows.filter((row) => Number.isInteger(row) && row >= 0 && row < store.rows)));
      }
      if (this.sets.size) this.current = this.sets.keys().next().value;
    }
    get names() { return [...this.sets.keys()].sort(); }
    has(name, row) { return Boolean(this.sets.get(name)?.has(row)); }
    of(row) { return this.names.filter((name) => this.has(name, row)); }
    count(name) { return this.sets.get(name)?.size || 0; }

    // Put the tag on all the rows, or take it off.
    put(name, rows, on) {
      const set = this.sets.get(name) || new Set();
      for (const row of rows) if (on) set.add(row); else set.delete(row);
      if (set.size) this.sets.set(name, set);
      else this.sets.delete(name);
      E.keep(this.place, Object.fromEntries([...this.sets].map(([tag, members]) => [tag, [...members]])));
    }
    toggle(name, row) { this.put(name, [row], !this.has(name, row)); }
  };

  E.recall = function (name) {
    try {
      return JSON.parse(localStorage.getItem(name));
    } catch {
      return null;
    }
  };
  E.keep = function (name, value) {
    try {
      localStorage.setItem(name, JSON.stringify(value));
    } catch { /* a browser that keeps nothing for pages from disk */ }
  };

  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

  // The rows as CSV, several labels of a photo between semicolons.
  E.csv = function (store, rows) {
    const names = (list) => Array.from(list, (name) => store.names[name]).join(";");
    const right = (value) => ["wrong", "right", ""][value];
    const number = (value) => (Number.isFinite(value) ? String(+value.toPrecision(7)) : "");
    const base = store.info.has_base;
    const head = ["path", "label", "prediction", "confidence", "outcome", ...(base ? ["base_prediction", "base_confidence", "base_outcome"] : []),
      ...(store.hasPolicy ? ["mean_score"] : []), ...(store.copyCount ? ["copies"] : []), "tags"];
    const lines = Array.from(rows, (row) => [store.paths[row], names(store.labels(row)), names(store.predictions(row)), number(store.confidence[row]), right(store.correct[row]),
      ...(base ? [names(store.basePredictions(row)), number(store.base_confidence[row]), right(store.base_correct[row])] : []),
      ...(store.hasPolicy ? [number(store.means[row])] : []), ...(store.copyCount ? [String(store.copies[row] || "")] : []), store.tags.of(row).join(";")]);
    return [head, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  };

  // One path a line, relative to the data's folder: what `options.only` and `options.without` of a training take.
  E.pathList = (store, rows) => Array.from(rows, (row) => store.paths[row]).join("\n") + "\n";

  function save(name, text, type) {
    const address = URL.createObjectURL(new Blob([text], { type }));
    const link = el("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  // actions: changed() after tags did, rows() that are shown, filter(tag)
  E.Selection = class {
    constructor(store, actions) {
      this.store = store;
      this.actions = actions;
      this.dialog = E.byId("selection");
      this.name = E.byId("tag-name");
      this.name.value = store.tags.current;
      const on = (id, action) => E.byId(id).addEventListener("click", action);
      this.name.addEventListener("input", () => { store.tags.current = this.tag; });
      on("tag-all", () => this.#put(true));
      on("untag-all", () => this.#put(false));
      on("export-csv", () => save("photos.csv", E.csv(store, actions.rows()), "text/csv;charset=utf-8"));
      on("export-paths", () => save("photos.txt", E.pathList(store, actions.rows()), "text/plain;charset=utf-8"));
      this.refresh();
    }

    get tag() { return this.name.value.trim().slice(0, MOST_NAME) || "check"; }

    #put(on) {
      this.store.tags.put(this.tag, this.actions.rows(), on);
      this.#changed(`${on ? "Tagged" : "Untagged"} ${E.count(this.actions.rows().length)} photos.`);
    }

    toggle(row) {
      this.store.tags.toggle(this.store.tags.current, row);
      this.#changed("");
    }

    #changed(said) {
      this.refresh();
      E.byId("tag-said").textContent = said;
      this.actions.changed();
    }

    refresh() {
      const { tags } = this.store;
      E.clear(E.byId("tag-list"), tags.names.map((name) => el("li", {}, el("button", {
        type: "button", class: "chip", onclick: () => { this.actions.filter(name); this.dialog.close(); },
      }, el("bdi", {}, name), ` ${E.count(tags.count(name))}`))));
      const select = E.byId("filter-tag");
      const wanted = this.actions.tag();
      const names = wanted && !tags.names.includes(wanted) ? [wanted, ...tags.names] : tags.names;
      E.clear(select, el("option", { value: "" }, "any"), names.map((name) => el("option", { value: name }, `${name} (${E.count(tags.count(name))})`)));
      select.value = wanted;
      select.closest("label").hidden = !names.length;
    }

    open() {
      this.refresh();
      this.name.value = this.store.tags.current = this.actions.tag() || this.tag;
      E.byId("selection-count").textContent = `${E.count(this.actions.rows().length)} photos are shown.`;
      this.dialog.showModal();
    }
  };
})(window.ElasticExplorer);
