// The photos, as many cards as fit the window and no more; rows of cards are reused while scrolling.
"use strict";
(function (E) {
  const { el } = E;
  const GAP = 10;
  const LETTER = 7.4; // pixels of a letter of a name, about
  const SPARE = 3; // rows drawn above and below the window

  function makeCard() {
    const card = {
      thumb: el("div", { class: "thumb" }),
      ribbon: el("canvas", { class: "ribbon", width: 1, height: 1 }),
      label: el("span", { class: "label", dir: "auto" }),
      mark: el("span", { class: "mark" }),
      detail: el("span", { class: "guess", dir: "auto" }),
      number: el("span", { class: "value" }),
      tags: el("span", { class: "tags", dir: "auto", "aria-hidden": "true" }),
      said: el("span", { class: "visually-hidden said" }), // the card in words; what is seen of it is hidden from readers
      row: -1,
    };
    card.element = el("div", { class: "card", role: "gridcell" }, card.said, card.thumb, card.tags, card.ribbon,
      el("div", { class: "line", "aria-hidden": "true" }, card.label, card.mark),
      el("div", { class: "line small", "aria-hidden": "true" }, card.detail, card.number));
    return card;
  }

  // A thumbnail as the background of an element, enlarged by `scale`.
  E.setThumb = function (store, element, row, scale = 1) {
    const { url, x, y } = store.sprite(row);
    const { columns, side } = store.info.thumbnails;
    element.style.backgroundImage = `url("${url}")`;
    element.style.backgroundSize = `${columns * side * scale}px auto`;
    element.style.backgroundPosition = `${-x * scale}px ${-y * scale}px`;
  };
  E.thumb = function (store, row) {
    const { side } = store.info.thumbnails;
    const element = el("div", { class: "thumb", style: { width: `${side}px`, height: `${side}px` } });
    E.setThumb(store, element, row);
    return element;
  };

  const MARKS = { right: ["\u2713", "right"], wrong: ["\u2717", "wrong"], gain: ["\u2713", "right, base wrong"], loss: ["\u2717", "wrong, base right"], unknown: ["", ""] };

  E.Grid = class {
    constructor(store, actions) {
      this.store = store;
      this.actions = actions;
      this.rows = new Uint32Array(0);
      this.active = 0;
      this.shades = "relative";
      this.scale = 1; // of the thumbnails
      this.valueOf = null;
      this.marked = new Set();
      this.lines = new Map(); // pool of row elements by place
      this.scroller = E.byId("grid");
      this.body = E.byId("rows");
      this.side = store.info.thumbnails.side;
      this.cardWidth = this.side + 18;
      this.longest = store.classes.reduce((most, name) => Math.max(most, store.names[name].length), 0);
      const draw = E.everyFrame(() => this.draw());
      this.scroller.addEventListener("scroll", draw, { passive: true });
      new ResizeObserver(() => this.#resize()).observe(this.scroller);
      this.scroller.addEventListener("keydown", (event) => this.#key(event));
      this.body.addEventListener("click", (event) => this.#click(event));
      this.#resize();
    }

    #resize() {
      this.width = this.scroller.clientWidth;
      this.height = this.scroller.clientHeight;
      const columns = Math.max(1, Math.floor((this.width - GAP) / (this.cardWidth + GAP)));
      const card = Math.max(this.cardWidth, Math.floor((this.width - GAP) / columns) - GAP); // cards fill the width
      this.scale = (card - 18) / this.side;
      const lines = this.longest * LETTER > card - 50 ? 2 : 1; // of the class's name, where one is too short for it
      const height = Math.round(this.side * this.scale) + (this.store.hasPolicy ? 65 : 46) + 17 * lines;
      for (const [name, value] of Object.entries({ thumb: this.side * this.scale, line: height - GAP, gap: GAP })) {
        this.scroller.style.setProperty(`--${name}`, `${value}px`);
      }
      this.scroller.style.setProperty("--lines", lines);
      if (columns !== this.columns || height !== this.lineHeight) {
        const first = Math.floor(this.scroller.scrollTop / (this.lineHeight || height)) * (this.columns || 1);
        this.columns = columns;
        this.lineHeight = height;
        this.lines.forEach((line) => line.element.remove());
        this.lines.clear();
        this.#measure();
        this.scroller.scrollTop = Math.floor(first / columns) * this.lineHeight;
      }
      this.draw();
    }

    #measure() {
      this.lineCount = Math.ceil(this.rows.length / this.columns);
      this.body.style.height = `${this.lineCount * this.lineHeight + GAP}px`;
      this.scroller.setAttribute("aria-rowcount", this.lineCount);
      this.scroller.setAttribute("aria-colcount", this.columns);
    }

    // Show these rows of the table, from the top unless the same photos stay.
    show(rows, keepPlace) {
      const current = this.rows[this.active];
      this.rows = rows;
      this.active = keepPlace ? Math.max(0, rows.indexOf(current)) : 0;
      this.#measure();
      if (!keepPlace) this.scroller.scrollTop = 0;
      E.byId("empty").hidden = rows.length > 0;
      this.refresh();
    }

    refresh() {
      this.lines.forEach((line) => { line.place = -1; });
      this.draw();
    }

    draw() {
      const top = this.scroller.scrollTop;
      const first = Math.max(0, Math.floor(top / this.lineHeight) - SPARE);
      const last = Math.min(this.lineCount, Math.ceil((top + this.height) / this.lineHeight) + SPARE);
      const poolSize = Math.ceil(this.height / this.lineHeight) + 2 * SPARE + 1;
      const used = new Set();
      for (let place = first; place < last; place++) {
        used.add(place % poolSize);
        this.#drawLine(place % poolSize, place);
      }
      this.lines.forEach((line, slot) => {
        if (used.has(slot)) return;
        line.element.remove();
        this.lines.delete(slot);
      });
      this.#markActive();
    }

    #drawLine(slot, place) {
      let line = this.lines.get(slot);
      if (!line) {
        line = { element: el("div", { class: "row", role: "row" }), cards: [], place: -1 };
        for (let i = 0; i < this.columns; i++) line.cards.push(makeCard());
        line.element.append(...line.cards.map((card) => card.element));
        this.body.append(line.element);
        this.lines.set(slot, line);
      }
      if (line.place === place) return;
      line.place = place;
      line.element.style.transform = `translateY(${place * this.lineHeight + GAP}px)`;
      line.element.setAttribute("aria-rowindex", place + 1);
      line.cards.forEach((card, column) => this.#fill(card, place * this.columns + column));
    }

    #fill(card, at) {
      const { store } = this;
      card.at = at;
      card.element.hidden = at >= this.rows.length;
      if (card.element.hidden) return;
      const row = this.rows[at];
      const label = store.labelText(row);
      const guess = store.predictionText(row);
      const [mark, markText] = MARKS[store.outcome(row)];
      const value = this.valueOf ? this.valueOf(row) : "";
      E.setThumb(store, card.thumb, row, this.scale);
      card.ribbon.hidden = !store.hasPolicy;
      if (store.hasPolicy) E.paintRibbon(card.ribbon, store.levels(store.policy(row), this.shades));
      card.label.textContent = store.isKnown ? label : guess;
      card.mark.textContent = mark;
      card.mark.className = `mark ${store.outcome(row)}`;
      card.detail.textContent = store.isKnown ? guess : "";
      card.number.textContent = value;
      card.element.id = `card-${at}`;
      card.element.title = `${store.isKnown ? `${label}\n` : ""}predicted ${guess}\n${store.paths[row]}`;
      const tags = store.tags.of(row);
      card.tags.textContent = tags.length ? `#${tags.join(" #")}` : "";
      card.element.classList.toggle("marked", this.marked.has(row));
      const said = [tags.length ? `tagged ${tags.join(", ")}` : "", store.isKnown ? label : "", `predicted ${guess}`, markText, `confidence ${E.percent(store.confidence[row], 0)}`,
        store.hasPolicy ? `mean score ${E.number(store.means[row])}` : "", this.marked.has(row) ? "marked for comparison" : ""];
      card.said.textContent = said.filter(Boolean).join(", ");
      card.element.setAttribute("aria-colindex", (at % this.columns) + 1);
    }

    #markActive() {
      const id = `card-${this.active}`;
      for (const old of this.body.querySelectorAll(".card.active")) if (old.id !== id) old.classList.remove("active");
      const card = document.getElementById(id);
      if (card) card.classList.add("active");
      if (card && !card.hidden) this.scroller.setAttribute("aria-activedescendant", id);
      else this.scroller.removeAttribute("aria-activedescendant");
    }

    move(at) {
      if (!this.rows.length) return;
      this.active = Math.max(0, Math.min(this.rows.length - 1, at));
      const top = Math.floor(this.active / this.columns) * this.lineHeight;
      const { scrollTop } = this.scroller;
      if (top < scrollTop) this.scroller.scrollTop = top;
      else if (top + this.lineHeight + GAP > scrollTop + this.height) this.scroller.scrollTop = top + this.lineHeight + GAP - this.height;
      this.draw();
    }
    moveToRow(row) {
      const at = this.rows.indexOf(row);
      if (at >= 0) this.move(at);
    }

    #key(event) {
      if (event.target !== this.scroller || event.ctrlKey || event.altKey || event.metaKey) return;
      const page = Math.max(1, Math.floor(this.height / this.lineHeight)) * this.columns;
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page };
      if (event.key in steps) this.move(this.active + steps[event.key]);
      else if (event.key === "Home") this.move(0);
      else if (event.key === "End") this.move(this.rows.length - 1);
      else if (event.key === "Enter" || event.key === " ") this.#open(this.active);
      else if (event.key.toLowerCase() === "c" && this.rows.length) this.actions.mark(this.rows[this.active]);
      else if (event.key.toLowerCase() === "g" && this.rows.length) this.actions.tag(this.rows[this.active]);
      else return;
      event.preventDefault();
    }

    #click(event) {
      const element = event.target.closest(".card");
      if (!element) return;
      const at = Number(element.id.slice("card-".length));
      this.move(at);
      if (event.ctrlKey || event.metaKey) this.actions.mark(this.rows[at]);
      else this.#open(at);
    }
    #open(at) {
      if (at < this.rows.length) this.actions.open(this.rows[at]);
    }
  };
})(window.ElasticExplorer);
