// One photo: picture, most probable classes, facts, policy block by block, and the nearest photos.
"use strict";
(function (E) {
  const { el } = E;
  const NEAREST = 16;

  E.ribbon = function (store, policy, scale) {
    const canvas = el("canvas", { class: "ribbon wide", width: 1, height: 1, "aria-hidden": "true" });
    E.paintRibbon(canvas, store.levels(policy, scale));
    return canvas;
  };

  E.pictureOf = function (store, row) {
    const address = store.picture(row);
    if (!address) return el("div", { class: "picture" }, E.thumb(store, row));
    const text = `Photo ${store.isKnown ? `of ${store.labelText(row)}` : `predicted ${store.predictionText(row)}`}`;
    return el("div", { class: "picture" }, el("img", { src: address, alt: text, decoding: "async" }));
  };

  const OUTCOME_TEXT = { right: "right", wrong: "wrong", gain: "Elastic right, base wrong", loss: "Elastic wrong, base right", unknown: "" };

  // Of several labels a photo: those that the network missed, and those that it added.
  function missedAndExtra(store, row) {
    if (!store.info.several || !store.isKnown) return [];
    const [labels, guesses] = [[...store.labels(row)], [...store.predictions(row)]];
    const missed = labels.filter((name) => !guesses.includes(name));
    const extra = guesses.filter((name) => !labels.includes(name));
    return [missed.length > 0 && ["missed", store.nameList(missed), "wrong"], extra.length > 0 && ["not in the labels", store.nameList(extra), "wrong"]];
  }

  // The most probable classes with bars; the photo's labels are marked.
  E.topClasses = function (store, row) {
    const top = store.top(row);
    if (!top.length) return null;
    const labels = new Set(store.labels(row));
    return el("ol", { class: "top", "aria-label": "Most probable classes" }, ...top.map(([name, probability]) => el("li", { class: labels.has(name) ? "is-right" : null },
      el("span", { class: "bar-text" }, el("bdi", {}, store.names[name]), labels.has(name) ? " \u2713" : ""),
      el("span", { class: "track" }, el("i", { style: { width: `${100 * probability}%` } })), el("span", { class: "figure" }, E.percent(probability)))));
  };

  E.facts = function (store, row) {
    const base = store.info.has_base && store.nameList(store.basePredictions(row));
    const sizes = store.size_values && store.size_values.subarray(store.size_starts[row], store.size_starts[row + 1]);
    const outcome = store.outcome(row);
    const list = [
      store.isKnown && ["class", store.labelText(row)],
      ["prediction", `${store.predictionText(row)}${Number.isFinite(store.confidence[row]) ? `, ${E.percent(store.confidence[row])}` : ""}`, outcome],
      store.info.has_base && ["base network", `${base || "nothing"}${Number.isFinite(store.base_confidence[row]) ? `, ${E.percent(store.base_confidence[row])}` : ""}`,
        ["wrong", "right", "unknown"][store.base_correct[row]]],
      OUTCOME_TEXT[outcome] && ["outcome", OUTCOME_TEXT[outcome], outcome],
      ...missedAndExtra(store, row),
      store.hasPolicy && ["mean score", E.number(store.means[row], 4)],
      store.iou && ["mean IoU", E.percent(store.iou[row])],
      sizes && sizes.length > 0 && ["objects", `${sizes.length}, of size ${Array.from(sizes.slice(0, 8), (size) => Math.round(size)).join(", ")}${sizes.length > 8 ? ", \u2026" : ""} (${store.info.size_unit})`],
      store.tags.of(row).length > 0 && ["tags", store.tags.of(row).join(", ")],
      ["path", store.paths[row]],
    ];
    return el("dl", { class: "facts" }, ...list.filter(Boolean).flatMap(([name, value, mark]) =>
      [el("dt", {}, name), el("dd", { class: mark ? `is-${mark}` : null, dir: "auto" }, value)]));
  };

  // A row of thumbnails with ribbons that open their photo.
  E.strip = function (store, rows, scale, open, caption) {
    return el("ul", { class: "strip" }, ...rows.map((row, i) => {
      const name = store.isKnown ? store.labelText(row) : store.predictionText(row);
      const ribbon = store.hasPolicy && el("canvas", { class: "ribbon", width: 1, height: 1 });
      if (ribbon) E.paintRibbon(ribbon, store.levels(store.policy(row), scale));
      return el("li", {}, el("button", { type: "button", class: "mini", title: store.paths[row], onclick: () => open(row) },
        E.thumb(store, row), ribbon || "", el("span", { class: "label", dir: "auto" }, name), " ", el("span", { class: "small" }, caption(row, i))));
    }));
  };

  // `actions`: open(row), mark(row), tag(row), step(by), category(name), close()
  E.Detail = class {
    constructor(store, actions) {
      this.store = store;
      this.actions = actions;
      this.dialog = E.byId("detail");
      this.dialog.addEventListener("close", () => actions.closed());
      this.dialog.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.altKey || event.metaKey) return;
        if (event.key === "ArrowLeft") actions.step(-1);
        else if (event.key === "ArrowRight") actions.step(1);
        else if (event.key.toLowerCase() === "c") actions.mark(this.row);
        else if (event.key.toLowerCase() === "g") actions.tag(this.row);
        else if (event.key.toLowerCase() === "o" && this.masks) this.masks.turn();
        else return;
        event.preventDefault();
      });
      this.overlay = "prediction"; // laid over the photos of a segmentation network
    }

    show(row, { scale, marked }) {
      const { store, actions } = this;
      this.row = row;
      const policy = store.policy(row);
      const category = store.category(row);
      const name = store.isKnown ? store.labelText(row) : store.predictionText(row);
      const near = E.nearest(store, store.point(row), NEAREST + 1, store.means.keys()).filter((item) => item.row !== row).slice(0, NEAREST);
      const distance = new Map(near.map((item) => [item.row, item.distance]));
      const series = [{ name: "this photo", policy, kind: "" }];
      const nearest = el("section", {}, el("h3", {}, store.hasPolicy ? "Nearest in policy space" : "Nearest in feature space"),
        E.strip(store, near.map((item) => item.row), scale, actions.open, (other) => `distance ${E.number(distance.get(other), 2)}`));
      const twins = store.copiesOf(row).slice(0, NEAREST);
      const another = (other) => (store.isKnown && store.labelText(other) !== name ? "another class" : "");
      const copies = twins.length > 0 && el("section", { class: "copies" }, el("h3", {}, "Looks the same"), E.strip(store, twins, scale, actions.open, another));
      this.masks = store.mask(row, "truth") ? new E.Masks(store, row, this.overlay, (kind) => { this.overlay = kind; }) : null;
      const focused = this.dialog.contains(document.activeElement) ? document.activeElement.id : "";
      E.clear(this.dialog,
        el("div", { class: "dialog-head" },
          el("h2", { id: "detail-title", dir: "auto" }, name),
          el("button", { type: "button", id: "detail-before", "aria-label": "The photo before", onclick: () => actions.step(-1) }, "\u2190"),
          el("button", { type: "button", id: "detail-after", "aria-label": "The next photo", onclick: () => actions.step(1) }, "\u2192"),
          el("button", { type: "button", id: "detail-mark", "aria-pressed": String(marked), onclick: () => actions.mark(row) }, marked ? "Marked" : "Compare\u2026"),
          el("button", { type: "button", id: "detail-tag", "aria-pressed": String(store.tags.has(store.tags.current, row)), onclick: () => actions.tag(row) }, "Tag ", el("bdi", {}, `\u201c${store.tags.current}\u201d`)),
          category >= 0 && el("button", { type: "button", id: "detail-class", onclick: () => actions.category(store.names[category]) }, "Only this class"),
          el("button", { type: "button", class: "close", id: "detail-close", onclick: () => this.dialog.close() }, "Close")),
        el("div", { class: "two" },
          el("div", {}, this.masks ? this.masks.element : E.pictureOf(store, row), E.topClasses(store, row), E.facts(store, row)),
          store.hasPolicy ? el("div", {}, el("h3", {}, "Scale policy"), E.ribbon(store, policy, scale),
            E.policyChart(store, series, { scale, width: 560 }), E.scoreTable(store, series)) : el("div", {}, nearest)),
        copies, store.hasPolicy && nearest);
      if (!this.dialog.open) this.dialog.showModal();
      E.byId(focused || "detail-close")?.focus();
      this.dialog.scrollTop = 0;
    }

    hide() {
      if (this.dialog.open) this.dialog.close();
    }
  };
})(window.ElasticExplorer);
