// What is said of the runs themselves: means of their scores, their configurations.
"use strict";

const GROUPS = { all: "all", seen: "seen", unseen: "unseen", gap: "seen − unseen" };

/** Fill the dialog of scores; false where there are none. */
function writeScores(data) {
  const protocols = [...new Set(data.runs.flatMap((run) => Object.keys(run.scores)))].sort();
  byId("scores-content").replaceChildren(...protocols.map((protocol) => scoresBy(protocol, data.runs)));
  byId("scores-content").append(element("p", { class: "note" },
    "Means over prompts, with an interval of 95 % beneath."));
  return protocols.length > 0;
}

function scoresBy(protocol, runs) {
  const found = runs.map((run) => run.scores[protocol] ?? {});
  const measures = [...new Set(found.flatMap((one) => Object.keys(one)))];
  const groups = Object.keys(GROUPS).filter((group) => found.some((one) => measures.some((m) => one[m]?.[group])));
  const head = element("tr", {}, element("th", {}, "measure"), runs.length > 1 ? element("th", {}, "prompts") : null,
    ...(runs.length > 1 ? runs.map((run) => run.name) : groups.map((group) => GROUPS[group]))
      .map((name) => element("th", { scope: "col" }, name)));
  const rows = measures.flatMap((measure) => runs.length > 1
    ? groups.filter((group) => found.some((one) => one[measure]?.[group])).map((group, i) =>
      element("tr", { class: i ? null : "first" }, element("th", { scope: "row" }, i ? "" : measure),
        element("td", {}, GROUPS[group]), ...found.map((one) => estimate(one[measure]?.[group]))))
    : [element("tr", { class: "first" }, element("th", { scope: "row" }, measure),
      ...groups.map((group) => estimate(found[0][measure]?.[group])))]);
  return element("table", { class: "wide" }, element("caption", {}, `protocol ${protocol}`),
    element("thead", {}, head), element("tbody", {}, ...rows));
}

function estimate(found) {
  if (!found) return element("td", {}, "");
  const [mean, low, high] = found;
  return element("td", { class: "number" }, figure(mean), element("small", {}, `${figure(low)} … ${figure(high)}`));
}

/** Fill the dialog of configurations when it is first opened, and search it. */
class Settings {
  constructor(data) {
    this.data = data;
    this.rows = null;
    byId("differs-label").hidden = data.runs.length < 2;
    byId("differs").checked = data.runs.length > 1;
    byId("settings-search").addEventListener("input", () => this.filter());
    byId("differs").addEventListener("change", () => this.filter());
  }

  open() {
    if (!this.rows) this.write();
    byId("settings").showModal();
  }

  write() {
    const { runs, settings } = this.data;
    this.rows = settings.map(([key, values]) => {
      const differs = values.some((value) => value !== values[0]);
      const row = element("tr", { class: differs ? "differs" : null }, element("th", { scope: "row" }, key),
        ...values.map((value) => element("td", {}, value ?? "–")));
      return { row, differs, text: [key, ...values].join("\n").toLowerCase() };
    });
    const begun = runs.map((run) => element("p", { class: "note" }, `${run.name}: `,
      element("code", {}, run.launch.command ?? "?"), ` ${run.launch.time ?? ""} `,
      run.launch.commit ? `commit ${run.launch.commit.slice(0, 10)}` : ""));
    this.none = element("p", { class: "note", hidden: true }, "No key or value has these words.");
    byId("settings-content").replaceChildren(...begun, element("table", { class: "wide settings" },
      element("thead", {}, element("tr", {}, element("th", {}, "key"),
        ...runs.map((run) => element("th", { scope: "col" }, run.name)))),
      element("tbody", {}, ...this.rows.map(({ row }) => row))), this.none);
    this.filter();
  }

  filter() {
    const words = byId("settings-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = byId("differs").checked && this.data.runs.length > 1;
    for (const { row, differs, text } of this.rows ?? []) {
      row.hidden = (only && !differs) || !words.every((word) => text.includes(word));
    }
    if (this.rows) this.none.hidden = this.rows.some(({ row }) => !row.hidden);
  }
}
