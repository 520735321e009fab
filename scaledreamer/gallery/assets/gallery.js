// Puts the parts together. data.js calls `gallery.show`, scripts of meshes call `gallery.mesh`.
"use strict";

const gallery = {
  mesh: (content) => { meshes.arrived.set(document.currentScript, content); },

  show(data) {
    const stage = { open: (place) => at.stage.open(place) };
    const list = new List(data, (place) => stage.open(place));
    const at = { list, stage: new Stage(data, list), settings: new Settings(data) };
    writeFacts(data);
    fillMenus(data, list);
    readAddress(data, list);
    listen(data, at);
    list.score();
    list.update();
    byId("show-scores").hidden = !writeScores(data);
    const asked = new URLSearchParams(location.hash.slice(1)).get("show");
    const place = data.objects.findIndex((object) => object.runs.some((shown) => shown && shown.name === asked));
    if (place >= 0) at.stage.open(place);
    document.body.dataset.ready = "";
  },
};

function writeFacts(data) {
  const steps = data.runs.map((run) => (run.step ? `step ${run.step.toLocaleString("en")}` : null)).filter(Boolean);
  const [run] = data.runs;
  const facts = data.runs.length > 1 ? [`${data.runs.length} runs`, [...new Set(steps)].join(", ")] : [run.name === data.title ? null : run.name, ...steps];
  byId("facts").textContent = [...facts, `made ${data.time.slice(0, 10)}`].filter(Boolean).join(" · ");
}

function fillMenus(data, list) {
  const several = new Set(data.measures.map((measure) => measure.protocol)).size > 1;
  byId("measure").replaceChildren(...data.measures.map((measure, i) =>
    element("option", { value: i }, several ? `${measure.name} · ${measure.protocol}` : measure.name)));
  byId("measure-label").hidden = !data.measures.length;
  const orders = [["given", "as listed"], ["name", "A to Z"]];
  if (data.measures.length) orders.push(["high", "score, high first"], ["low", "score, low first"]);
  if (data.measures.length && data.runs.length > 1) orders.push(["apart", "runs far apart first"]);
  byId("order").replaceChildren(...orders.map(([value, name]) => element("option", { value }, name)));
  const count = (kind) => list.seen.filter((one) => one === kind).length;
  const counts = { all: list.seen.length, seen: count("seen"), unseen: count("unseen") };
  byId("filter").hidden = !(counts.seen || counts.unseen);
  for (const input of byId("filter").querySelectorAll("input")) {
    input.nextElementSibling.append(element("small", {}, ` ${counts[input.value].toLocaleString("en")}`));
  }
}

/** What is searched and shown is in the address, so that it can be sent and is there after a reload. */
function readAddress(data, list) {
  const given = new URLSearchParams(location.hash.slice(1));
  const { state } = list;
  state.words = given.get("search") ?? "";
  if (["seen", "unseen"].includes(given.get("prompts"))) state.seen = given.get("prompts");
  if (data.measures[Number(given.get("score") ?? -1)]) state.measure = Number(given.get("score"));
  if ([...byId("order").options].some((option) => option.value === given.get("order"))) state.order = given.get("order");
  byId("search").value = state.words;
  byId("filter").querySelector(`[value=${state.seen}]`).checked = true;
  byId("measure").value = state.measure;
  byId("order").value = state.order;
}

function writeAddress({ list, stage }, data) {
  const { words, seen, measure, order } = list.state;
  const given = new URLSearchParams();
  if (words.trim()) given.set("search", words);
  if (seen !== "all") given.set("prompts", seen);
  if (measure > 0) given.set("score", measure);
  if (order !== "given") given.set("order", order);
  if (stage.place !== null) given.set("show", data.objects[stage.place].runs.find(Boolean).name);
  const address = given.size ? `#${given}` : location.pathname + location.search;
  try { history.replaceState(null, "", address); } catch { /* some browsers refuse it for pages on a disk */ }
}

function listen(data, at) {
  const { list, stage, settings } = at;
  const changed = (change) => { Object.assign(list.state, change); list.update(); writeAddress(at, data); };
  const search = later(80, () => changed({ words: byId("search").value }));
  byId("search").addEventListener("input", search);
  byId("bar").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("change", (event) => changed({ seen: event.target.value }));
  byId("order").addEventListener("change", (event) => changed({ order: event.target.value }));
  byId("measure").addEventListener("change", (event) => {
    changed({ measure: Number(event.target.value) });
    list.score();
  });
  byId("reset").addEventListener("click", () => {
    byId("search").value = "";
    byId("filter").querySelector("[value=all]").checked = true;
    changed({ words: "", seen: "all" });
    byId("search").focus();
  });
  stage.onchange = () => writeAddress(at, data);
  byId("show-scores").addEventListener("click", () => byId("scores").showModal());
  byId("show-settings").addEventListener("click", () => settings.open());
  for (const dialog of document.querySelectorAll("dialog.sheet")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.matches("input, select") && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      byId("search").focus();
    }
  });
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("scaledreamer-gallery-theme", root.dataset.theme); } catch { /* see look.js */ }
  });
}
