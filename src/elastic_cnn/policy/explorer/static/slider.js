// One slider with two handles: two range inputs on one track, so that keys and screen readers work as everywhere.
"use strict";
(function (E) {
  const { el } = E;

  // id: prefix of the inputs' ids (`ID-low`, `ID-high`). name: what is measured. change(low, high, quiet)
  E.RangeSlider = class {
    constructor(id, name, { min, max, step, change }) {
      this.change = change;
      const input = (end, text, value) => el("input", { type: "range", id: `${id}-${end}`, min, max, step, value, "aria-label": text });
      this.low = input("low", `Lowest ${name}`, min);
      this.high = input("high", `Highest ${name}`, max);
      this.fill = el("span", { class: "slider-fill" });
      this.element = el("span", { class: "slider" }, el("span", { class: "slider-track" }, this.fill), this.low, this.high);
      this.low.addEventListener("input", () => this.#moved(this.low, true));
      this.high.addEventListener("input", () => this.#moved(this.high, true));
      for (const handle of [this.low, this.high]) handle.addEventListener("change", () => this.#moved(handle, false));
      this.limits(min, max, step);
    }

    limits(min, max, step) {
      this.min = min;
      this.max = max;
      for (const handle of [this.low, this.high]) Object.assign(handle, { min, max, step });
    }

    set(low, high) {
      if (+this.low.value !== low) this.low.value = low;
      if (+this.high.value !== high) this.high.value = high;
      this.#draw();
    }

    // A handle stops at the other one.
    #moved(handle, quiet) {
      if (+this.low.value > +this.high.value) handle.value = handle === this.low ? this.high.value : this.low.value;
      this.#draw();
      this.change(+this.low.value, +this.high.value, quiet);
    }

    #draw() {
      const span = this.max - this.min || 1;
      const [left, right] = [this.low, this.high].map((handle) => (100 * (handle.value - this.min)) / span);
      Object.assign(this.fill.style, { left: `${left}%`, width: `${Math.max(0, right - left)}%` });
      this.low.style.zIndex = left > 50 ? 2 : 1; // else the upper handle hides it at the right end
    }
  };
})(window.ElasticExplorer);
