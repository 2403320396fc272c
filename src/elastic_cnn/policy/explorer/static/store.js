// The table in the browser: typed arrays by row, and names as text. Data files call receive(name, value) as they load.
"use strict";
(function (E) {
  const ARRAYS = { f4: Float32Array, f8: Float64Array, u1: Uint8Array, u4: Uint32Array };
  const received = {};
  E.receive = (name, value) => { received[name] = value; };
  E.received = received;

  function bytes(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const binary = atob(text);
    const array = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) array[i] = binary.charCodeAt(i);
    return array;
  }
  const decode = ([kind, text]) => new ARRAYS[kind](bytes(text).buffer);

  E.Store = class {
    constructor(table, columns, scores, paths) {
      this.info = table;
      this.rows = table.rows;
      this.blocks = table.blocks;
      this.names = table.names;
      this.paths = paths;
      this.scores = decode(scores); // rows x blocks, row by row
      for (const [name, column] of Object.entries(columns)) this[name] = decode(column);
      this.means = this.#means();
      this.classes = table.classes; // indices of names that occur as a label (where none is known: as a prediction)
      this.isKnown = table.has_labels;
      this.filedStarts = this.isKnown ? this.label_starts : this.prediction_starts;
      this.filedNames = this.isKnown ? this.label_names : this.prediction_names;
      this.rank = new Uint32Array(this.names.length); // of a name in alphabetical order
      const collator = new Intl.Collator("en", { numeric: true });
      const order = this.names.map((_, i) => i).sort((a, b) => collator.compare(this.names[a], this.names[b]) || a - b);
      order.forEach((name, place) => { this.rank[name] = place; });
    }

    #text = [];

    #means() {
      const count = this.blocks.length;
      const means = new Float32Array(this.rows);
      for (let row = 0, at = 0; row < this.rows; row++) {
        let sum = 0;
        for (let block = 0; block < count; block++, at++) sum += this.scores[at];
        means[row] = sum / count;
      }
      return means;
    }

    score(row, block) { return this.scores[row * this.blocks.length + block]; }
    policy(row) { return this.scores.subarray(row * this.blocks.length, (row + 1) * this.blocks.length); }

    #list(kind, row) {
      return this[`${kind}_names`].subarray(this[`${kind}_starts`][row], this[`${kind}_starts`][row + 1]);
    }
    labels(row) { return this.#list("label", row); }
    predictions(row) { return this.#list("prediction", row); }
    // The class by which a photo is filed: its first label, else its first prediction, else none (-1).
    category(row) {
      const first = this.filedStarts[row];
      return first < this.filedStarts[row + 1] ? this.filedNames[first] : -1;
    }
    isOf(row, name) {
      for (let at = this.filedStarts[row]; at < this.filedStarts[row + 1]; at++) if (this.filedNames[at] === name) return true;
      return false;
    }
    nameList(list) { return Array.from(list, (name) => this.names[name]).join(", "); }
    labelText(row) { return this.nameList(this.labels(row)) || "no label"; }
    predictionText(row) { return this.nameList(this.predictions(row)) || "nothing"; }

    // "right", "wrong", "gain" (Elastic right and base wrong) or "unknown"
    outcome(row) {
      if (this.correct[row] > 1) return "unknown";
      if (!this.correct[row]) return "wrong";
      return this.info.has_base && this.base_correct[row] === 0 ? "gain" : "right";
    }

    // What the search looks through: path, classes and predictions in lower case.
    get text() {
      this.#makeText(this.rows);
      return this.#text;
    }
    #makeText(end) {
      for (let row = this.#text.length; row < end; row++) {
        const text = `${this.paths[row]}\n${this.nameList(this.labels(row))}\n${this.nameList(this.predictions(row))}`;
        this.#text.push(text.toLowerCase());
      }
    }
    // Make it while the page has nothing else to do, so that the first search does not wait.
    prepareText() {
      if (this.#text.length === this.rows) return;
      requestIdleCallback((deadline) => {
        do this.#makeText(Math.min(this.rows, this.#text.length + 4000));
        while (this.#text.length < this.rows && deadline.timeRemaining() > 2);
        this.prepareText();
      }, { timeout: 100 });
    }

    // Shades of a policy, 0 (low resolution) to 255 (high), one a block.
    levels(policy, scale) {
      return Array.from(policy, (score, block) => {
        const { low, high } = scale === "absolute" ? this.info.range : this.blocks[block];
        return E.level(score, low, high);
      });
    }

    sprite(row) {
      const { per_sprite: size, columns, side } = this.info.thumbnails;
      const slot = this.slot[row];
      const sheet = Math.floor(slot / size);
      const place = slot % size;
      return { url: E.numbered("thumbs", sheet), x: (place % columns) * side, y: Math.floor(place / columns) * side, sheet };
    }
    picture(row) { return this.has_picture[row] ? E.numbered("pictures", row) : null; }
  };

  // Files by number, a thousand to a folder. No address is ever made from text of the table.
  E.numbered = (folder, number) => `${folder}/${String(Math.floor(number / 1000)).padStart(4, "0")}/${String(number).padStart(7, "0")}.webp`;
})(window.ElasticExplorer);
