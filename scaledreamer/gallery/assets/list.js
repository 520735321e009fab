// The list of prompts: what is shown of it and in which order, and thumbnails that play.
"use strict";

/** Files of an object: poster .webp, video .mp4, mesh .js. Names are made of a-z, 0-9 and dashes. */
const file = (run, shown, suffix) => `${run.folder}/${suffix === "js" ? shown.mesh : shown.video}.${suffix}`;

class List {
  /**
   * @param {Object} data - of data.js.
   * @param {function(number): void} open - called with the place of a prompt that was chosen.
   */
  constructor(data, open) {
    this.data = data;
    this.state = { words: "", seen: "all", measure: data.measures.length ? 0 : -1, order: "given" };
    this.places = data.objects.map((_, place) => place); // in the order in which they are listed
    this.shown = [...this.places];
    this.arranged = "given";
    this.text = data.objects.map((object) => object.prompt.toLowerCase());
    this.seen = data.objects.map(known);
    const several = data.runs.length > 1;
    document.body.classList.toggle("several", several);
    document.body.style.setProperty("--runs", data.runs.length);
    this.cards = data.objects.map((object, place) => this.card(object, place, open));
    byId("list").replaceChildren(...this.cards);
    if (several) {
      byId("heads").hidden = false;
      byId("heads").replaceChildren(...data.runs.map((run) => element("span", { title: run.name }, run.name)));
    }
    new Player(byId("list"), data);
  }

  /** One prompt: its objects side by side, and what is said of them. */
  card(object, place, open) {
    const thumbs = object.runs.map((shown, i) => thumb(this.data.runs[i], shown, place, i));
    const unseen = this.seen[place] === "unseen";
    const button = element("button", { type: "button", class: "card" },
      element("span", { class: "thumbs" }, ...thumbs),
      element("span", { class: "words" },
        element("span", { class: "prompt", title: object.prompt }, object.prompt),
        unseen ? element("span", { class: "unseen", title: "Not trained on" }, "unseen") : null));
    button.addEventListener("click", () => open(place));
    return element("li", {}, button);
  }

  /** Show what the state asks for. */
  update() {
    this.arrange();
    const { seen } = this.state;
    const words = this.state.words.toLowerCase().split(/\s+/).filter(Boolean);
    this.shown = this.places.filter((place) =>
      (seen === "all" || this.seen[place] === seen) && words.every((word) => this.text[place].includes(word)));
    const chosen = new Set(this.shown);
    this.cards.forEach((card, place) => { card.hidden = !chosen.has(place); });
    byId("count").value = this.shown.length === this.cards.length
      ? `${this.cards.length.toLocaleString("en")} prompts`
      : `${this.shown.length.toLocaleString("en")} of ${this.cards.length.toLocaleString("en")}`;
    byId("none").hidden = this.shown.length > 0;
  }

  /** Put the cards in order where that has changed. */
  arrange() {
    const { order, measure } = this.state;
    const arranged = ["given", "name"].includes(order) ? order : `${order} ${measure}`;
    if (arranged === this.arranged) return;
    this.arranged = arranged;
    this.places.sort((a, b) => a - b);
    if (order === "name") {
      this.places.sort((a, b) => this.text[a].localeCompare(this.text[b]));
    } else if (order !== "given" && measure >= 0) {
      const worth = this.data.objects.map((object) => value(object, measure, order));
      // Those without a score come last, whichever way round.
      this.places.sort((a, b) => (Number(worth[a] === null) - Number(worth[b] === null)) || worth[b] - worth[a]);
    }
    byId("list").append(...this.places.map((place) => this.cards[place]));
  }

  /** Write the chosen score under each thumbnail. */
  score() {
    const { measure } = this.state;
    for (const place of this.cards.keys()) {
      this.cards[place].querySelectorAll(".score").forEach((label) => {
        const shown = this.data.objects[place].runs[Number(label.dataset.run)];
        label.textContent = measure < 0 || !shown ? "" : figure(shown.scores[measure]);
      });
    }
  }
}

/** "seen" where a run was trained on it, "unseen" where none was, null where that is not known. */
function known(object) {
  const said = object.runs.filter(Boolean).map((shown) => shown.seen);
  if (said.includes(true)) return "seen";
  return said.includes(null) ? null : "unseen";
}

/** What a prompt is sorted by, large first: the mean over the runs, or how far they are apart. */
function value(object, measure, order) {
  const found = object.runs.filter(Boolean).map((shown) => shown.scores[measure]).filter((one) => one !== null);
  if (!found.length || (order === "apart" && found.length < 2)) return null;
  if (order === "apart") return Math.max(...found) - Math.min(...found);
  const mean = found.reduce((sum, one) => sum + one, 0) / found.length;
  return order === "low" ? -mean : mean;
}

function thumb(run, shown, place, i) {
  const picture = element("span", { class: "picture" });
  if (shown && shown.video) {
    picture.append(element("img", {
      src: file(run, shown, "webp"), alt: "", loading: "lazy", decoding: "async", width: 256, height: 256,
    }));
    Object.assign(picture.dataset, { place, run: i });
  } else {
    picture.append(element("span", { class: "nothing" }, shown ? "no video" : "not made"));
  }
  return element("span", { class: "thumb" }, picture, element("span", { class: "score", "data-run": i }));
}

/** A video that shows the one of several maps side by side that the poster shows. */
function movie(run, shown, attributes = {}) {
  const video = element("video", {
    src: file(run, shown, "mp4"), muted: true, loop: true, playsinline: true, autoplay: true,
    "disablepictureinpicture": true, ...attributes,
  });
  video.muted = true;
  const [at, of] = shown.at;
  video.style.objectPosition = of > 1 ? `${(100 * at) / (of - 1)}% 0` : "";
  return video;
}

/** Plays the thumbnails of the one card under the mouse or in focus; there is no video in the page otherwise. */
class Player {
  constructor(list, data) {
    this.data = data;
    this.card = null;
    const start = later(60, (card) => this.play(card));
    const of = (event) => event.target.closest?.(".card");
    list.addEventListener("pointerover", (event) => event.pointerType !== "touch" && start(of(event)));
    list.addEventListener("pointerleave", () => start(null));
    list.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && start(of(event)));
    list.addEventListener("focusout", () => start(null));
  }

  play(card) {
    if (card === this.card || calm.matches) return;
    this.stop();
    this.card = card;
    card?.querySelectorAll(".picture[data-place]").forEach((picture) => {
      const { place, run } = picture.dataset;
      const video = movie(this.data.runs[run], this.data.objects[place].runs[run], { "aria-hidden": "true" });
      picture.append(video);
    });
  }

  stop() {
    this.card?.querySelectorAll("video").forEach((video) => {
      video.removeAttribute("src");
      video.load(); // lets go of the file
      video.remove();
    });
    this.card = null;
  }
}
