// Words about what is shown: how much of it is right, and what a ribbon is.
"use strict";
(function (E) {
  const SEEN = "elastic-explorer:ribbon-explained";

  // {known, right, base, gain, loss} of rows: photos whose label is known, and how many of them who gets right.
  E.tally = function (store, rows) {
    const { correct, base_correct: base } = store;
    const tally = { known: 0, right: 0, paired: 0, base: 0, gain: 0, loss: 0 };
    for (const row of rows) {
      if (correct[row] > 1) continue;
      tally.known++;
      tally.right += correct[row];
      if (!base || base[row] > 1) continue;
      tally.paired++;
      tally.base += base[row];
      if (correct[row] > base[row]) tally.gain++;
      if (correct[row] < base[row]) tally.loss++;
    }
    return tally;
  };

  E.accuracyText = function (store, rows) {
    const { known, right, paired, base, gain, loss } = E.tally(store, rows);
    if (!known) return "";
    const own = `${E.percent(right / known)} right`;
    return paired ? `${own}, base ${E.percent(base / paired)} (only Elastic right ${E.count(gain)}, only base right ${E.count(loss)})` : own;
  };

  // What a ribbon is, until the reader has closed it once.
  E.intro = function (store) {
    const place = E.byId("intro");
    if (!store.hasPolicy || E.recall(SEEN)) return;
    const mean = store.blocks.map((block) => block.mean);
    E.paintRibbon(E.byId("intro-ribbon"), store.levels(mean, "absolute"));
    place.hidden = false;
    E.byId("intro-close").addEventListener("click", () => {
      place.hidden = true;
      E.keep(SEEN, 1);
      E.byId("grid").focus();
    });
  };
})(window.ElasticExplorer);
