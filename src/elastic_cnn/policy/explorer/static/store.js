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
      this.hasPolicy = this.blocks.length > 0;
      this.space = this.#space();
      this.means = this.#means();
      this.classes = table.classes; // indices of names that occur as a label (where none is known: as a prediction)
      this.isKnown = table.has_labels;
      this.filedStarts = this.isKnown ? this.label_starts : this.prediction_starts;
      this.filedNames = this.isKnown ? this.label_names : this.prediction_names;
      this.rank = new Uint32Array(this.names.length); // of a name in alphabetical order
      const collator = new Intl.Collator("en", { numeric: true });
      const order = this.names.map((_, i) => i).sort((a, b) => collator.compare(this.names[a], this.names[b]) || a - b);
      order.forEach((name, place) => { this.rank[name] = place; });
      this.tags = new E.Tags(this);
      this.copyCount = this.copies.reduce((sum, group) => sum + (group > 0), 0); // photos that look like another one
    }

    #text = [];

    // Where photos are near each other: the policies, or the features of a plain network (bytes, row by row).
    #space() {
      if (this.hasPolicy) {
        return { values: this.scores, width: this.blocks.length, weight: this.blocks.map(({ deviation }) => (deviation > 0 ? 1 / deviation ** 2 : 0)) };
      }
      const width = this.info.feature_width;
      return { values: this.features, width, weight: new Float64Array(width).fill(1 / 64 ** 2) };
    }
    point(row) { return this.space.values.subarray(row * this.space.width, (row + 1) * this.space.width); }

    #means() {
      const count = this.blocks.length;
      const means = new Float32Array(this.rows);
      for (let row = 0, at = 0; row < this.rows; row++) {
        let sum = 0;
        for (let block = 0; block < count; block++, at++) sum += this.scores[at];
        means[row] = count ? sum / count : NaN;
      }
      return means;
    }

    score(row, block) { return this.scores[row * this.blocks.length + block]; }
    policy(row) { return this.scores.subarray(row * this.blocks.length, (row + 1) * this.blocks.length); }

    #list(kind, row) {
      return this[`${kind}_names`].subarray(this[`${kind}_starts`][row], this[`${kind}_starts`][row + 1]);
    }
    // The first name of a kind in a row; -1 for none.
    first(kind, row) {
      const start = this[`${kind}_starts`][row];
      return start < this[`${kind}_starts`][row + 1] ? this[`${kind}_names`][start] : -1;
    }
    // [[name's number, probability]], best first; empty where only the best was kept
    top(row) {
      if (!this.info.has_top) return [];
      const [start, end] = [this.top_starts[row], this.top_starts[row + 1]];
      return Array.from({ length: end - start }, (_, i) => [this.top_names[start + i], this.top_values[start + i]]);
    }
    margin(row) {
      const start = this.top_starts[row];
      return this.top_starts[row + 1] - start < 2 ? NaN : this.top_values[start] - this.top_values[start + 1];
    }
    // The size of the photo's largest object, NaN where it is unknown.
    largest(row) {
      let most = NaN;
      for (let at = this.size_starts[row]; at < this.size_starts[row + 1]; at++) if (!(this.size_values[at] <= most)) most = this.size_values[at];
      return most;
    }
    // The other photos that look like this one.
    copiesOf(row) {
      const group = this.copies[row];
      return group ? [...this.copies.keys()].filter((other) => this.copies[other] === group && other !== row) : [];
    }
    labels(row) { return this.#list("label", row); }
    predictions(row) { return this.#list("prediction", row); }
    basePredictions(row) { return this.#list("base_prediction", row); }
    // The class by which a photo is filed: its first label, else its first prediction, else none (-1).
    category(row) { return this.first(this.isKnown ? "label" : "prediction", row); }
    isOf(row, name) {
      for (let at = this.filedStarts[row]; at < this.filedStarts[row + 1]; at++) if (this.filedNames[at] === name) return true;
      return false;
    }
    nameList(list) { return Array.from(list, (name) => this.names[name]).join(", "); }
    labelText(row) { return this.nameList(this.labels(row)) || "no label"; }
    predictionText(row) { return this.nameList(this.predictions(row)) || "nothing"; }

    // "right", "wrong", "gain" (right, and the base network wrong), "loss" (wrong, and the base right) or "unknown"
    outcome(row) {
      if (this.correct[row] > 1) return "unknown";
      const base = this.info.has_base ? this.base_correct[row] : 2;
      if (this.correct[row]) return base === 0 ? "gain" : "right";
      return base === 1 ? "loss" : "wrong";
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
    // The address of a mask to lay over the picture: "truth", "prediction" or "errors"; null for none.
    mask(row, kind) { return this.has_picture[row] && this.has_masks[row] ? E.numbered(`masks/${kind}`, row, "png") : null; }
  };

  // Files by number, a thousand to a folder. No address is ever made from text of the table.
  E.numbered = (folder, number, ending = "webp") => `${folder}/${String(Math.floor(number / 1000)).padStart(4, "0")}/${String(number).padStart(7, "0")}.${ending}`;
})(window.ElasticExplorer);
