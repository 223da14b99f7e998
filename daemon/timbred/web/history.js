// The history of takes: search by words, stars and similarity, one page at a time.

import * as api from "./api.js";
import { dragOut } from "./drag_export.js";
import { drawWave } from "./canvas.js";
import { icon, createElement, set, write } from "./dom.js";
import { announce } from "./live_region.js";
import { ago, many, seconds } from "./format.js";

const PAGE_ROWS = 60;
const PREFETCH_ROWS = 10;
const SEARCH_DELAY_MS = 180;
const MAX_WAVEFORM_SECONDS = 30;

export class History {
  /** `choose` is called with the take that the user selects; `actions` are those of a take. */
  constructor(element, { sounds, choose, actions }) {
    this.sounds = sounds;
    this.choose = choose;
    this.actions = actions;
    this.rows = new Map();
    this.like = null;
    this.more = false;
    this.chosen = null;
    this.turn = 0;
    this.refreshing = false;
    this.build(element);
  }

  build(element) {
    this.search = createElement("input", { type: "search", id: "search", placeholder: "Search the takes", "aria-label": "Search the takes by words", "aria-keyshortcuts": "/", autocomplete: "off", spellcheck: "false" });
    this.stars = createElement("button", { type: "button", class: "icon-only star", id: "only-starred", "aria-pressed": "false", "aria-label": "Only starred takes", title: "Only starred takes", onclick: () => this.onlyStarred() }, icon("star"));
    this.similarTo = createElement("p", { class: "similar-to", hidden: true });
    this.total = createElement("p", { class: "total", role: "status" });
    this.failure = createElement("p", { class: "failure" });
    this.list = createElement("ul", { class: "takes", id: "takes", "aria-label": "Takes, the newest first" });
    this.moreButton = createElement("button", { type: "button", class: "small more", hidden: true, onclick: () => this.next() }, "More");
    element.append(createElement("div", { class: "search" }, this.search, this.stars), this.similarTo, this.total, this.failure, this.list, this.moreButton);
    this.search.addEventListener("input", () => this.onSearchInput());
    this.list.addEventListener("keydown", (event) => this.onKeydown(event));
    this.ending = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.next(), { scrollMargin: "400px", rootMargin: "400px" });
    this.thumbnailObserver = new IntersectionObserver((entries) => this.drawThumbnails(entries), { rootMargin: "100px" });
  }

  onSearchInput() {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.refresh(), SEARCH_DELAY_MS);
  }

  onlyStarred() {
    set(this.stars, "aria-pressed", String(!this.starredOnly));
    return this.refresh();
  }

  get starredOnly() {
    return this.stars.getAttribute("aria-pressed") === "true";
  }

  get plain() {
    return !this.search.value.trim() && !this.starredOnly && this.like === null;
  }

  /** Lists the takes similar to this one, the most similar first. */
  findSimilar(take) {
    this.like = take;
    this.search.value = "";
    this.similarTo.hidden = false;
    this.similarTo.replaceChildren(
      "Like ",
      createElement("strong", { text: take.prompt }),
      ", by sound if the model has embeddings, otherwise by words ",
      createElement("button", { type: "button", class: "small", onclick: () => this.clearSimilar() }, icon("cross"), " All takes"),
    );
    return this.refresh();
  }

  clearSimilar() {
    this.like = null;
    this.similarTo.hidden = true;
    return this.refresh();
  }

  // ---- pages

  /** Queries the first page again. A response that is older than the last query is dropped. */
  async refresh() {
    const turn = (this.turn += 1);
    this.refreshing = true;
    const page = await this.page(null);
    if (turn !== this.turn) return;
    this.refreshing = false;
    if (page) this.replace(page);
  }

  /** Shows the first page. Rows of takes that stay in the list keep their elements, and with them a click and the focus. */
  replace({ takes, total, more }) {
    const before = this.rows;
    this.rows = new Map();
    let next = this.list.firstElementChild;
    for (const take of takes) {
      const element = this.reuse(before.get(take.take_id), take) ?? this.row(take);
      if (element === next) next = next.nextElementSibling;
      else this.list.insertBefore(element, next);
    }
    for (const [id, { element }] of before) {
      if (this.rows.get(id)?.element === element) continue;
      this.thumbnailObserver.unobserve(element);
      element.remove();
    }
    this.add({ takes: [], total, more });
  }

  async next() {
    if (!this.more || this.waiting) return;
    const turn = this.turn;
    this.waiting = true;
    const page = await this.page([...this.rows.keys()].pop());
    this.waiting = false;
    if (turn === this.turn && page) this.add(page);
  }

  async page(before) {
    try {
      const query = { search: this.search.value, starred: this.starredOnly, like: this.like?.take_id ?? null, before, limit: PAGE_ROWS };
      const page = await api.takes(query);
      write(this.failure, "");
      return page;
    } catch (error) {
      write(this.failure, error.message);
      return null;
    }
  }

  add({ takes, total, more }) {
    this.list.append(...takes.filter((take) => !this.rows.has(take.take_id)).map((take) => this.row(take)));
    this.more = more;
    this.moreButton.hidden = !more;
    // observed again, as it may still be visible
    this.ending.unobserve(this.moreButton);
    this.ending.observe(this.moreButton);
    this.count(total);
    this.mark();
  }

  count(total) {
    this.known = total;
    const words = this.search.value.trim();
    const what = this.starredOnly ? many(total, "starred take") : many(total, "take");
    const nothing = words ? `No take's prompt contains the words "${words}"` : this.starredOnly ? "No starred takes yet: S stars the selected take" : "No takes yet";
    write(this.total, total ? (words ? `${what} with "${words}"` : what) : this.like ? "No other prompt has a word in common" : nothing);
  }

  /** Adds a new take of any client. */
  addNew(take) {
    if (this.rows.has(take.take_id)) return;
    if (!this.plain) return void this.refresh();
    this.list.prepend(this.row(take));
    this.rows = new Map([[take.take_id, this.rows.get(take.take_id)], ...this.rows]);
    this.count((this.known ?? 0) + 1);
    this.mark();
  }

  // ---- rows

  row(take) {
    const picture = createElement("canvas", { class: "thumbnail", "aria-hidden": "true", "data-take": take.take_id });
    const facts = createElement("span", { class: "facts", text: factsOf(take) });
    const button = createElement(
      "button",
      { type: "button", class: "choose", draggable: take.url ? "true" : null, tabindex: -1, onclick: () => this.go(take), ondragstart: (event) => dragOut(event, take) },
      picture,
      createElement("span", { class: "prompt", text: take.prompt }),
      facts,
    );
    const star = createElement("button", { type: "button", class: "icon-only star", tabindex: -1, "aria-label": `Star: ${take.prompt}`, "aria-pressed": String(take.starred), onclick: () => this.actions.star(take) }, icon("star"));
    const element = createElement("li", { "data-take": take.take_id, class: take.missing ? "missing" : null }, button, star);
    this.rows.set(take.take_id, { take, element, button, star, picture, facts });
    if (take.url && !take.missing && take.seconds <= MAX_WAVEFORM_SECONDS) this.thumbnailObserver.observe(element);
    return element;
  }

  /** Updates a row with its take's latest state; returns its element, undefined if the take needs a new row. */
  reuse(row, take) {
    if (!row || row.take.url !== take.url || row.take.missing !== take.missing) return undefined;
    Object.assign(row.take, take);
    this.rows.set(take.take_id, row);
    write(row.facts, factsOf(take));
    set(row.star, "aria-pressed", String(take.starred));
    return row.element;
  }

  /** Draws the waveforms of the rows that become visible. */
  async drawThumbnails(entries) {
    for (const { target, isIntersecting } of entries) {
      const row = this.rows.get(target.dataset.take);
      if (!isIntersecting || !row) continue;
      this.thumbnailObserver.unobserve(target);
      try {
        const sound = await this.sounds.get(row.take.url, row.take.rate);
        if (row.element.isConnected) drawWave(row.picture, sound, { colour: "#ffb547a8", core: "#ffd894", centre: false });
      } catch (error) {
        row.element.classList.add("missing");
        row.element.title = error.message;
      }
    }
  }

  /** Updates the ages of the takes. */
  age() {
    for (const { facts, take } of this.rows.values()) write(facts, factsOf(take));
  }

  starred(take) {
    const row = this.rows.get(take.take_id);
    if (row) {
      row.take.starred = take.starred;
      set(row.star, "aria-pressed", String(take.starred));
    }
    if (this.refreshing) this.refresh(); // the response may have been read before the change
  }

  // ---- selection

  go(take, { focus = false } = {}) {
    this.chosen = take.take_id;
    this.mark();
    if (focus) this.rows.get(take.take_id)?.button.focus();
    this.choose(take);
  }

  /** Makes one row reachable with Tab; arrow keys reach the others. */
  mark() {
    const rows = [...this.rows.values()];
    const current = this.rows.get(this.chosen) ?? rows[0];
    for (const row of rows) {
      set(row.button, "tabindex", row === current ? 0 : -1);
      set(row.star, "tabindex", row === current ? 0 : -1);
      set(row.button, "aria-current", row.take.take_id === this.chosen ? "true" : null);
      row.element.classList.toggle("chosen", row.take.take_id === this.chosen);
    }
  }

  onKeydown(event) {
    const offset = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (offset === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(offset, { focus: true });
  }

  /** Selects the take `offset` rows below. */
  move(offset, options = {}) {
    const ids = [...this.rows.keys()];
    if (!ids.length) return announce("No takes in this list");
    // -1 without a selection: the first take is next
    const current = ids.indexOf(this.chosen);
    const to = Math.min(ids.length - 1, Math.max(0, current + offset));
    const row = this.rows.get(ids[to]);
    this.go(row.take, options);
    row.element.scrollIntoView({ block: "nearest" });
    if (to + PREFETCH_ROWS >= ids.length) this.next();
    return undefined;
  }
}

const factsOf = (take) => (take.missing ? `${take.model} · file missing` : `${seconds(take.seconds)} · ${take.model} · ${ago(take.created)}`);
