// A histogram of any number of the photos: bars of what all other conditions leave, and a range that filters.
"use strict";
(function (E) {
  const { el, svg } = E;
  const BINS = 40;
  const WIDTH = 460;
  const HEIGHT = 92;
  const BOTTOM = 16;

  // actions: chart(key), brush(list, quiet)
  E.Histogram = class {
    constructor(store, actions) {
      this.store = store;
      this.actions = actions;
      this.extents = new Map();
      this.picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "histogram", role: "img" });
      this.slider = new E.RangeSlider("brush", "value", { min: 0, max: BINS, step: 1, change: (low, high, quiet) => this.#brushBins(low, high, quiet) });
      this.text = el("output", { class: "note", for: "brush-low brush-high" });
      E.byId("histogram").append(this.picture, this.slider.element, this.text);
      const select = E.byId("histogram-key");
      E.clear(select, E.scoreKeys(store).map(([key, title]) => el("option", { value: key }, title)));
      select.addEventListener("change", () => actions.chart(select.value));
      this.#drag();
    }

    #extent(key) {
      if (!this.extents.has(key)) {
        const value = E.valueOf(this.store, key);
        let [low, high] = [Infinity, -Infinity];
        for (let row = 0; row < this.store.rows; row++) {
          const number = value(row);
          if (number < low) low = number;
          if (number > high) high = number;
        }
        if (["confidence", "base", "margin", "iou"].includes(key)) [low, high] = [0, 1];
        if (!(high > low)) [low, high] = Number.isFinite(low) ? [low - 0.5, low + 0.5] : [0, 1];
        this.extents.set(key, [low, high]);
      }
      return this.extents.get(key);
    }

    // Counts of right, wrong and unknown in each bin.
    counts(key, passes) {
      const [low, high] = this.#extent(key);
      const value = E.valueOf(this.store, key);
      const counts = new Float64Array(3 * BINS);
      const { correct, rows } = this.store;
      for (let row = 0; row < rows; row++) {
        if (!passes(row)) continue;
        const number = value(row);
        if (Number.isNaN(number)) continue;
        const bin = Math.min(BINS - 1, Math.floor(((number - low) / (high - low)) * BINS));
        counts[3 * bin + [1, 0, 2][correct[row]]]++;
      }
      return counts;
    }

    show(state, matcher) {
      this.state = state;
      const { chart: key } = state;
      E.byId("histogram-key").value = key;
      const place = state.brush.findIndex((brush) => brush.key === key);
      const [low, high] = this.#extent(key);
      const counts = this.counts(key, matcher.without(place < 0 ? "" : `brush${place}`));
      const range = place < 0 ? [low, high] : [state.brush[place].low, state.brush[place].high];
      this.#draw(counts, range, key);
      const bins = range.map((value) => ((value - low) / (high - low)) * BINS);
      this.slider.set(Math.max(0, Math.round(bins[0])), Math.min(BINS, Math.round(bins[1])));
      this.text.textContent = place < 0 ? "all values; drag over the bars or move the handles to keep a range" : `${E.number(range[0])} to ${E.number(range[1])}`;
      E.clear(E.byId("brushes"), state.brush.map((brush) => this.#chip(brush)));
    }

    #draw(counts, range, key) {
      const [low, high] = this.#extent(key);
      const totals = Array.from({ length: BINS }, (_, bin) => counts[3 * bin] + counts[3 * bin + 1] + counts[3 * bin + 2]);
      const most = Math.max(1, ...totals);
      const step = WIDTH / BINS;
      const parts = [];
      for (let bin = 0; bin < BINS; bin++) {
        const middle = low + ((bin + 0.5) / BINS) * (high - low);
        const kept = middle >= range[0] && middle <= range[1];
        let top = HEIGHT - BOTTOM;
        ["right", "wrong", "unknown"].forEach((kind, i) => {
          const tall = (counts[3 * bin + i] / most) * (HEIGHT - BOTTOM - 4);
          if (!tall) return;
          top -= tall;
          parts.push(svg("rect", { class: `bin ${kind}${kept ? "" : " off"}`, x: bin * step + 0.5, width: step - 1, y: top, height: tall },
            svg("title", {}, `${E.number(low + (bin / BINS) * (high - low))} to ${E.number(low + ((bin + 1) / BINS) * (high - low))}: ${E.count(counts[3 * bin + i])} ${kind === "unknown" ? "photos" : kind}`)));
        });
      }
      for (let i = 0; i <= 4; i++) {
        const anchor = ["start", "middle", "middle", "middle", "end"][i];
        parts.push(svg("text", { class: "tick-text", x: (i * WIDTH) / 4, y: HEIGHT - 3, "text-anchor": anchor }, E.number(low + ((high - low) * i) / 4, 2)));
      }
      this.picture.setAttribute("aria-label", `Histogram of ${E.byId("histogram-key").selectedOptions[0]?.text}, right photos below wrong ones, at most ${E.count(most)} a bar`);
      E.clear(this.picture, parts);
    }

    #chip({ key, low, high }) {
      const title = E.scoreKeys(this.store).find(([other]) => other === key)[1];
      return el("button", { type: "button", class: "chip", title: "Drop this range", onclick: () => this.#set(key, null, false) },
        `${title}: ${E.number(low)} to ${E.number(high)} \u00d7`);
    }

    #brushBins(lowBin, highBin, quiet) {
      const key = this.state.chart;
      const [low, high] = this.#extent(key);
      const at = (bin) => low + (bin / BINS) * (high - low);
      this.#set(key, lowBin <= 0 && highBin >= BINS ? null : { key, low: at(lowBin), high: at(highBin) }, quiet);
    }

    #set(key, brush, quiet) {
      const places = this.state.brush.slice();
      const place = places.findIndex((other) => other.key === key);
      if (brush && place >= 0) places[place] = brush;
      else if (brush) places.push(brush);
      else if (place >= 0) places.splice(place, 1);
      this.actions.brush(places.slice(-E.MOST_BRUSHES), quiet);
    }

    #drag() {
      let from = null;
      const bin = (event) => {
        const box = this.picture.getBoundingClientRect();
        return Math.max(0, Math.min(BINS, ((event.clientX - box.left) / box.width) * BINS));
      };
      const ends = (event) => [Math.floor(Math.min(from, bin(event))), Math.ceil(Math.max(from, bin(event)))];
      this.picture.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        this.picture.setPointerCapture(event.pointerId);
        from = bin(event);
      });
      this.picture.addEventListener("pointermove", (event) => { if (from !== null) this.#brushBins(...ends(event), true); });
      this.picture.addEventListener("pointerup", (event) => {
        if (from !== null) this.#brushBins(...ends(event), false);
        from = null;
      });
      this.picture.addEventListener("pointercancel", () => { from = null; });
    }
  };
})(window.ElasticExplorer);
