// What is shown, as one object and as the address's hash, so that a view can be shared.
"use strict";
(function (E) {
  const DEFAULTS = {
    query: "", outcome: "all", category: "", low: 0, high: 100, sort: "table", descending: false, ribbon: "relative",
    map: true, photos: false, color: "category", view: [], lasso: [], photo: -1, pair: [], classes: [], theme: "",
  };
  // name in the hash -> [field, to text, from text]; what is wrong in a hash is left out
  const text = (limit) => [(value) => value, (value) => value.slice(0, limit)];
  const choice = (...values) => [(value) => value, (value) => (values.includes(value) ? value : undefined)];
  const whole = (low, high) => [String, (value) => (/^\d+$/.test(value) && +value >= low && +value <= high ? +value : undefined)];
  const flag = [(value) => (value ? "1" : "0"), (value) => value === "1"];
  const numbers = (most) => [
    (list) => list.map((value) => String(+value.toFixed(4))).join("_"),
    (value) => {
      const list = value.split("_").map(Number);
      return list.length <= most && list.every((item) => Number.isFinite(item) && Math.abs(item) < 1e7) ? list : undefined;
    },
  ];
  const FIELDS = {
    q: ["query", ...text(200)],
    show: ["outcome", ...choice("all", "right", "wrong", "gain", "loss")],
    class: ["category", ...text(1000)],
    low: ["low", ...whole(0, 100)],
    high: ["high", ...whole(0, 100)],
    sort: ["sort", (value) => value, (value) => (/^(table|category|category-mean|prediction|confidence|base|mean|b\d{1,4})$/.test(value) ? value : undefined)],
    down: ["descending", ...flag],
    ribbon: ["ribbon", ...choice("relative", "absolute")],
    map: ["map", ...flag],
    photos: ["photos", ...flag],
    color: ["color", (value) => value, (value) => (/^(category|outcome|confidence|mean|b\d{1,4})$/.test(value) ? value : undefined)],
    view: ["view", ...numbers(3)],
    lasso: ["lasso", ...numbers(400)],
    photo: ["photo", ...whole(0, 2 ** 21)],
    pair: ["pair", ...numbers(2)],
    classes: ["classes", (list) => list.map((name) => encodeURIComponent(name).replaceAll("_", "%5F")).join("_"), (value) => value.split("_").slice(0, 2).map(decodeURIComponent)],
    theme: ["theme", ...choice("light", "dark")],
  };
  const same = (a, b) => String(a) === String(b);

  E.formatHash = function (state) {
    const parts = [];
    for (const [name, [field, write]] of Object.entries(FIELDS)) {
      if (!same(state[field], DEFAULTS[field])) parts.push(`${name}=${encodeURIComponent(write(state[field]))}`);
    }
    return parts.length ? `#${parts.join("&")}` : "";
  };

  E.parseHash = function (hash) {
    const state = { ...DEFAULTS };
    for (const part of hash.replace(/^#/, "").split("&")) {
      const [name, value] = part.split("=");
      const field = Object.hasOwn(FIELDS, name) ? FIELDS[name] : null;
      if (!field || value === undefined) continue;
      try {
        const read = field[2](decodeURIComponent(value));
        if (read !== undefined) state[field[0]] = read;
      } catch { /* not a text that this page writes */ }
    }
    return state;
  };

  // Rows and blocks of another table are left out.
  E.fitState = function (state, store) {
    const isBlock = (key) => !/^b\d+$/.test(key) || +key.slice(1) < store.blocks.length;
    const isRow = (row) => Number.isInteger(row) && row >= 0 && row < store.rows;
    const fitted = { ...state };
    if (!isBlock(state.sort)) fitted.sort = DEFAULTS.sort;
    if (!isBlock(state.color)) fitted.color = DEFAULTS.color;
    if (!isRow(state.photo)) fitted.photo = -1;
    if (state.pair.length !== 2 || !state.pair.every(isRow)) fitted.pair = [];
    if (state.classes.length !== 2 || !state.classes.every((name) => store.names.includes(name))) fitted.classes = [];
    if (state.category && !store.names.includes(state.category)) fitted.category = "";
    if (state.lasso.length < 6 || state.lasso.length % 2) fitted.lasso = [];
    if (state.view.length !== 3 || !(state.view[2] > 0)) fitted.view = [];
    if (!store.info.has_base && ["gain", "loss"].includes(state.outcome)) fitted.outcome = "all";
    return fitted;
  };

  E.State = class {
    constructor(store, listener) {
      this.store = store;
      this.listener = listener;
      this.now = E.fitState(E.parseHash(location.hash), store);
      this.write = E.after(150, () => history.replaceState(null, "", location.href.split("#")[0] + E.formatHash(this.now)));
      window.addEventListener("hashchange", () => this.#replace(E.fitState(E.parseHash(location.hash), store)));
    }

    #replace(next) {
      const changed = new Set(Object.keys(DEFAULTS).filter((field) => !same(next[field], this.now[field])));
      this.now = next;
      if (changed.size) this.listener(changed);
    }

    set(patch) {
      this.#replace({ ...this.now, ...patch });
      this.write();
    }

    clear() {
      const { query, outcome, category, low, high, lasso } = DEFAULTS;
      this.set({ query, outcome, category, low, high, lasso });
    }
  };
})(window.ElasticExplorer);
