// Which photos are shown. Each condition has a bit of its own, so that a change looks at one condition alone, and a chart
// can count what all conditions but its own leave (cross-filtering).
"use strict";
(function (E) {
  E.MOST_BRUSHES = 4;

  function insidePolygon(polygon, x, y) {
    let inside = false;
    for (let i = 0, j = polygon.length - 2; i < polygon.length; j = i, i += 2) {
      const above = polygon[i + 1] > y;
      if (above !== polygon[j + 1] > y) {
        const cross = polygon[i] + ((y - polygon[i + 1]) / (polygon[j + 1] - polygon[i + 1])) * (polygon[j] - polygon[i]);
        if (x < cross) inside = !inside;
      }
    }
    return inside;
  }

  function outcomeTest(store, { outcome }) {
    const { correct, base_correct: base } = store;
    const pairs = { gain: [1, 0], loss: [0, 1], "both-right": [1, 1], "both-wrong": [0, 0] };
    if (outcome === "right") return (row) => correct[row] === 1;
    if (outcome === "wrong") return (row) => correct[row] === 0;
    if (!(outcome in pairs)) return null;
    const [here, there] = pairs[outcome];
    return (row) => correct[row] === here && base[row] === there;
  }

  function classTest(store, { category, among }) {
    const wanted = new Set(among);
    if (category) wanted.add(store.names.indexOf(category));
    if (!wanted.size) return null;
    const { filedStarts: starts, filedNames: names } = store;
    return (row) => {
      for (let at = starts[row]; at < starts[row + 1]; at++) if (wanted.has(names[at])) return true;
      return false;
    };
  }

  function confidenceTest({ confidence }, { low, high }) {
    if (low <= 0 && high >= 100) return null;
    const [least, most] = [low / 100, high / 100];
    return (row) => !(low > 0 && !(confidence[row] >= least)) && !(high < 100 && !(confidence[row] <= most));
  }

  function queryTest(store, { query }) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return null;
    const { text } = store;
    return (row) => words.every((word) => text[row].includes(word));
  }

  // a cell of the confusion matrix: label and prediction, each the first of its row
  function cellTest(store, { cell }) {
    if (!cell.length) return null;
    return (row) => store.first("label", row) === cell[0] && store.first("prediction", row) === cell[1];
  }

  function brushTest(store, { brush }, place) {
    if (place >= brush.length) return null;
    const { key, low, high } = brush[place];
    const value = E.valueOf(store, key);
    return (row) => value(row) >= low && value(row) <= high;
  }

  // condition -> [the fields of the state that it hangs on, the test of a row (null: all pass)]
  const CONDITIONS = {
    outcome: [["outcome"], outcomeTest],
    class: [["category", "among"], classTest],
    confidence: [["low", "high"], confidenceTest],
    lasso: [["lasso"], (store, { lasso }) => (lasso.length ? (row) => insidePolygon(lasso, store.x[row], store.y[row]) : null)],
    query: [["query"], queryTest],
    cell: [["cell"], cellTest],
    copies: [["copies"], (store, { copies }) => (copies ? (row) => store.copies[row] > 0 : null)],
    tag: [["tag", "tagged"], (store, { tag }) => (tag ? (row) => store.tags.has(tag, row) : null)],
  };
  for (let place = 0; place < E.MOST_BRUSHES; place++) {
    CONDITIONS[`brush${place}`] = [["brush"], (store, state) => brushTest(store, state, place)];
  }
  const BITS = Object.fromEntries(Object.keys(CONDITIONS).map((name, i) => [name, 1 << i]));
  E.FILTER_FIELDS = [...new Set(Object.values(CONDITIONS).flatMap(([fields]) => fields))];

  E.Matcher = class {
    constructor(store) {
      this.store = store;
      this.fails = new Uint16Array(store.rows); // bits of the conditions that a row does not meet
      this.set = 0; // bits of conditions that are set
    }

    // Look at the conditions whose fields changed (null: at all). Returns the rows that meet all, in table order.
    update(state, changed) {
      for (const [name, [fields, make]] of Object.entries(CONDITIONS)) {
        if (!changed || fields.some((field) => changed.has(field))) this.#apply(BITS[name], make(this.store, state));
      }
      const rows = new Uint32Array(this.store.rows);
      let count = 0;
      for (let row = 0; row < rows.length; row++) if (!this.fails[row]) rows[count++] = row;
      return rows.slice(0, count);
    }

    #apply(bit, test) {
      const { fails } = this;
      if (!test && !(this.set & bit)) return;
      this.set = test ? this.set | bit : this.set & ~bit;
      for (let row = 0; row < fails.length; row++) fails[row] = !test || test(row) ? fails[row] & ~bit : fails[row] | bit;
    }

    // Whether a row meets all conditions but this one.
    without(name) {
      const others = ~(BITS[name] || 0);
      return (row) => !(this.fails[row] & others);
    }
  };
})(window.ElasticExplorer);
