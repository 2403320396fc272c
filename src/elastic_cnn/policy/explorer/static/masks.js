// The masks of a segmentation network over a photo: truth, prediction or errors, and the colours of their classes.
"use strict";
(function (E) {
  const { el } = E;
  const KINDS = [["truth", "Truth"], ["prediction", "Prediction"], ["errors", "Errors"], ["", "Photo alone"]];
  const rgb = (colour) => `rgb(${colour.join(" ")})`;

  // `chosen(kind)` is told what is laid over the photo from now on, "" for nothing.
  E.Masks = class {
    constructor(store, row, kind, chosen) {
      this.store = store;
      this.row = row;
      this.chosen = chosen;
      this.picture = E.pictureOf(store, row);
      this.overlay = el("img", { class: "overlay", decoding: "async" });
      this.picture.append(el("div", { class: "framed" }, this.picture.querySelector("img"), this.overlay));
      this.buttons = KINDS.map(([name, text]) => el("button", { type: "button", id: `overlay-${name || "none"}`, onclick: () => this.show(name) }, text));
      this.legend = el("ul", { class: "mask-legend", "aria-label": "Colours of the mask" });
      this.element = el("div", {}, this.picture,
        el("div", { class: "overlays", role: "group", "aria-label": "Laid over the photo (O turns)" }, ...this.buttons), this.legend);
      this.show(kind);
    }

    // From truth to prediction, to errors, to the photo alone.
    turn() {
      const at = KINDS.findIndex(([name]) => name === this.kind);
      this.show(KINDS[(at + 1) % KINDS.length][0]);
    }

    show(kind) {
      this.kind = kind;
      this.chosen(kind);
      this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(KINDS[i][0] === kind)));
      this.overlay.hidden = !kind;
      if (kind) {
        this.overlay.src = this.store.mask(this.row, kind);
        this.overlay.alt = kind === "errors" ? "Pixels that are wrong" : `Mask: ${this.#names(kind).map((name) => this.store.names[name]).join(", ")}`;
      }
      E.clear(this.legend, ...this.#entries(kind).map(([colour, name]) => el("li", {}, el("i", { style: { background: rgb(colour) } }), el("bdi", {}, name))));
    }

    #names(kind) { return [...(kind === "truth" ? this.store.labels(this.row) : this.store.predictions(this.row))]; }

    #entries(kind) {
      if (kind === "errors") return [[[214, 40, 57], "wrong class"]];
      return kind ? this.#names(kind).map((name) => [this.store.info.palette[name], this.store.names[name]]) : [];
    }
  };
})(window.ElasticExplorer);
