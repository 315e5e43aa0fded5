// The pages work without this script. With it, a vote needs no new page, the standings move as
// votes arrive, and the clock runs.

const language = document.documentElement.lang;
const locale = { en: "en-GB", fr: "fr-FR" }[language];
const numbers = new Intl.NumberFormat(locale);
const plurals = new Intl.PluralRules(locale);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const texts = JSON.parse(document.getElementById("texts")?.textContent ?? "{}");

const POLL_MS = 5000; // between questions when events do not come
const SILENT_MS = 3000; // between questions when the counting room does not answer
const JITTER_MS = 1500; // so that all who watch do not ask in the same instant

const byId = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const fill = (text, fields) => text.replace(/{(\w+)}/g, (_, name) => fields[name]);
const form = (forms, n) => fill(forms[plurals.select(n)] ?? forms.other, { n: numbers.format(n) });
const percent = (part, whole) => (whole ? Math.floor((200 * part + whole) / (2 * whole)) : 0);

// ---- Times

function localTimes() {
  const format = new Intl.DateTimeFormat(locale, {
    day: "numeric", month: "long", year: "numeric",
    hour: "2-digit", minute: "2-digit", timeZoneName: "short",
  });
  for (const time of all("time[data-local]")) time.textContent = format.format(new Date(time.dateTime));
}

// The server's Unix time when performance.now() was 0. An answer is late by its way here, never
// early: the highest estimate is the nearest.
let epoch = -Infinity;
const heardTime = (now) => { epoch = Math.max(epoch, now - performance.now() / 1000); };
const serverNow = () => epoch + performance.now() / 1000;

function clockText(left) {
  const [days, hours, minutes, seconds] = [86400, 3600, 60, 1].map((unit, i, units) =>
    Math.floor((i ? left % units[i - 1] : left) / unit));
  const clock = [hours, minutes, seconds].map((part) => String(part).padStart(2, "0")).join(":");
  return days ? `${form(texts.days, days)} ${clock}` : clock;
}

// ---- The page of a poll

class PollPage {
  constructor(main) {
    this.main = main;
    this.url = `/api/polls/${main.dataset.poll}`;
    this.sending = Promise.resolve();
    this.enhance();
    this.listen();
    document.addEventListener("submit", (event) => this.submitted(event));
    document.addEventListener("click", (event) => this.clicked(event));
    setInterval(() => this.tick(), 250);
    addEventListener("pageshow", (event) => event.persisted && this.refresh());
  }

  get state() { return this.main.dataset.state; }
  get ranked() { return Number(this.main.dataset.ranked) > 1; }

  /** What a fresh piece of page needs: local times, the podium, the buttons that a script serves. */
  enhance() {
    localTimes();
    this.version = Number(this.main.dataset.version ?? 0);
    if (this.main.dataset.now) heardTime(Number(this.main.dataset.now));
    for (const element of all("[data-without-script]")) element.hidden = true;
    for (const element of all("[data-with-script]")) element.hidden = false;
    for (const podium of all("[data-podium]")) podium.noValidate = true;
    for (const button of all("[data-copy]")) button.hidden = !navigator.clipboard;
    for (const button of all("[data-share]")) button.hidden = !navigator.share;
    this.showPodium();
    this.tick();
    if (this.state === "silent") pause(SILENT_MS).then(() => this.refresh());
  }

  say(text, shown = true) {
    const said = byId("said");
    said.classList.toggle("sr", !shown);
    said.textContent = text;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { said.textContent = ""; }, 5000);
  }

  /** Say that the device works for the vote; return what shows how much of it is done, 0 to 1. */
  working() {
    this.say(texts.working);
    clearTimeout(this.saying);
    const bar = document.createElement("progress");
    bar.setAttribute("aria-label", texts.working);
    bar.value = 0;
    byId("said").append(bar);
    return (done) => { bar.value = done; };
  }

  alarm(text) {
    byId("alarm").textContent = text;
    if (text) byId("alarm").scrollIntoView({ block: "center" });
  }

  // Clock

  tick() {
    const clock = this.main.querySelector(".clock");
    const { opens, closes } = this.main.dataset;
    const edge = Number({ early: opens, open: closes }[this.state] ?? 0);
    if (!clock) return;
    clock.hidden = !edge;
    if (!edge) return;
    const left = Math.max(0, Math.ceil(edge - serverNow()));
    const text = clockText(left);
    if (clock.textContent === text) return;
    clock.textContent = text;
    if (this.state === "open" && [600, 300, 60].includes(left)) {
      this.say(fill(texts.left, { time: form(texts.minutes, left / 60) }), false);
    }
    if (left === 0) this.turn();
  }

  /** The edge is reached: ask for the page until it has turned. */
  async turn() {
    const before = this.state;
    for (let wait = 300; this.state === before && wait < 60000; wait *= 2) {
      await pause(wait + Math.random() * JITTER_MS);
      await this.refresh();
    }
  }

  // From the server: its page, or its events

  /** Ask for the page and show it; if ``insist``, ask until it comes. */
  async refresh(insist = this.state === "silent") {
    try {
      const answer = await fetch(location.pathname + location.search, { cache: "no-store" });
      if (answer.ok && this.show(await answer.text())) return;
    } catch { /* as if it were not ok */ }
    if (insist) pause(SILENT_MS).then(() => this.refresh(true));
  }

  /**
   * Show the page ``html`` in place of this one, moving as little as possible; return if it is a
   * page of this poll.
   */
  show(html) {
    const page = new DOMParser().parseFromString(html, "text/html");
    const main = page.getElementById("main");
    if (main?.dataset.poll !== this.main.dataset.poll) return false;
    const same = main.dataset.state === this.state && main.querySelectorAll(".slot").length === all(".slot").length;
    const seen = this.main.dataset.seen;
    const unsent = this.unsent;
    Object.assign(this.main.dataset, main.dataset);
    if (same) {
      this.put("strip", page);
      this.put("ticket", page);
      this.showVote(main);
      if (main.dataset.seen === "yes" && seen === "yes") this.arrange(rowsOf(main));
      else this.put("board", page);
    } else {
      const inside = this.main.contains(document.activeElement);
      this.main.replaceChildren(...main.childNodes);
      if (inside) {
        const title = this.main.querySelector("h1");
        title.tabIndex = -1;
        title.focus({ preventScroll: true });
      }
    }
    if (unsent) this.fillPodium(unsent);
    this.enhance();
    this.markLive();
    // Who may see the standings may have changed with the vote.
    if (main.dataset.seen !== seen) this.listen();
    return true;
  }

  put(id, page) {
    const [here, there] = [byId(id), page.getElementById(id)];
    const focused = here.contains(document.activeElement);
    here.className = there.className;
    here.replaceChildren(...there.childNodes);
    if (focused) {
      here.tabIndex = -1;
      here.focus({ preventScroll: true });
    }
  }

  showVote(main) {
    for (const button of all(".slot [name=choice]", main)) {
      const here = this.main.querySelector(`.slot [value="${button.value}"]`);
      here.setAttribute("aria-pressed", button.getAttribute("aria-pressed"));
    }
    for (const select of all("select", main)) {
      const here = byId(select.id);
      [...here.options].forEach((option, index) => { option.defaultSelected = select.options[index].defaultSelected; });
      here.value = select.value;
    }
  }

  listen() {
    this.events?.close();
    clearInterval(this.asking);
    if (!window.EventSource) return this.askEvery();
    const events = new EventSource(`${this.url}/events`);
    this.events = events;
    events.addEventListener("standing", (event) => { this.heard(JSON.parse(event.data)); });
    events.addEventListener("open", () => { clearInterval(this.asking); this.live = true; this.markLive(); });
    events.addEventListener("bye", () => {
      events.close();
      pause(Math.random() * JITTER_MS).then(() => this.events === events && this.listen());
    });
    events.addEventListener("error", () => {
      this.live = false;
      this.markLive();
      this.askEvery();
      // A browser gives up after an answer that is no stream.
      if (events.readyState === EventSource.CLOSED) {
        pause(6 * POLL_MS).then(() => this.events === events && this.listen());
      }
    });
  }

  askEvery() {
    clearInterval(this.asking);
    this.asking = setInterval(async () => {
      try {
        let answer = await fetch(`${this.url}/results`, { cache: "no-store" });
        // Covered; the state of the poll, and how many voted, is told to everybody.
        if (answer.status === 403) answer = await fetch(this.url, { cache: "no-store" });
        if (answer.ok) this.heard(await answer.json());
      } catch { /* the next question may reach it */ }
    }, POLL_MS);
  }

  markLive() {
    for (const mark of all(".live")) mark.hidden = !this.live;
  }

  /** Take a standing that the server sent: what ``/api/polls/<id>/results`` answers. */
  heard(standing) {
    heardTime(standing.now);
    const { state, seen, closes } = this.main.dataset;
    const turned = standing.state !== state || (standing.points ? "yes" : "no") !== seen
      || (standing.closes ?? Number(closes)) !== Number(closes);
    if (turned) {
      if (!this.turning) {
        this.turning = pause(Math.random() * JITTER_MS).then(() => this.refresh()).finally(() => { this.turning = null; });
      }
      return;
    }
    if (standing.version < this.version) return;
    this.version = standing.version;
    this.showCount(standing.voters);
    if (standing.points) this.arrange(this.rowsFrom(standing.points));
  }

  showCount(voters) {
    const count = this.main.querySelector("[data-voters]");
    if (!count) return;
    count.textContent = numbers.format(voters);
    count.nextElementSibling.textContent = form(texts.counted, voters);
  }

  rowsFrom(points) {
    const order = all(".row").sort((a, b) => a.dataset.order - b.dataset.order).map((row) => row.dataset.code);
    const values = Object.values(points);
    const [total, best] = [values.reduce((sum, n) => sum + n, 0), Math.max(...values)];
    return order
      .map((code, index) => ({ code, index, n: points[code] ?? 0 }))
      .sort((a, b) => b.n - a.n || a.index - b.index)
      .map(({ code, n }) => ({
        code,
        place: n ? String(1 + values.filter((other) => other > n).length) : "–",
        main: this.ranked ? numbers.format(n) : fill(texts.percent, { percent: percent(n, total) }),
        small: form(this.ranked ? texts.points : texts.votes, n),
        width: `${percent(n, best)}%`,
      }));
  }

  /** Put the rows of the standings in their order; each slides from where it was. */
  arrange(rows) {
    const list = this.main.querySelector(".rows");
    if (!list) return;
    const here = new Map([...list.children].map((row) => [row.dataset.code, row]));
    const before = new Map([...list.children].map((row) => [row, row.getBoundingClientRect().top]));
    rows.forEach((row, index) => {
      const element = here.get(row.code);
      write(element.querySelector(".place"), row.place);
      write(element.querySelector(".value b"), row.main);
      write(element.querySelector(".value small"), row.small);
      element.querySelector("rect").setAttribute("width", row.width);
      if (list.children[index] !== element) list.insertBefore(element, list.children[index]);
    });
    if (calm.matches) return;
    for (const [row, top] of before) {
      const moved = top - row.getBoundingClientRect().top;
      if (moved) {
        row.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }],
          { duration: 600, easing: "cubic-bezier(.2, .7, .2, 1)" });
      }
    }
  }

  // From the voter

  submitted(event) {
    const sent = event.target;
    if (!sent.matches("[data-vote]")) return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(sent));
    if (event.submitter?.name) body.set(event.submitter.name, event.submitter.value);
    const taken = sent.action.includes("/withdraw");
    event.submitter?.setAttribute("aria-busy", "true");
    // One after the other, so that the last tap is the vote.
    this.sending = this.sending
      .then(() => this.send(sent.action, body, taken))
      .finally(() => event.submitter?.removeAttribute("aria-busy"));
  }

  async send(action, body, taken) {
    this.alarm("");
    try {
      const answer = await fetch(action, { method: "POST", body });
      const html = await answer.text();
      // A counted vote is answered with the way to the page. What came of that way is another
      // matter: without the counting room the page is a 503.
      if (answer.ok || answer.redirected) {
        if (!this.show(html)) this.refresh(true);
        this.say(taken ? texts.withdrawn : texts.voted);
        return;
      }
      const page = new DOMParser().parseFromString(html, "text/html");
      const { challenge } = page.getElementById("main")?.dataset ?? {};
      if (challenge && !body.has("work")) {
        const { solve } = await import("@@work.js@@");
        body.set("work", await solve(challenge, this.working()));
        this.say("");
        await this.send(action, body, taken);
        return;
      }
      const [title, lead] = ["h1", ".lead"].map((part) => page.querySelector(part)?.textContent ?? "");
      if (answer.status === 409) await this.refresh();
      this.alarm(`${title}. ${lead}`);
    } catch {
      this.alarm(texts.offline);
    }
  }

  clicked(event) {
    const button = event.target.closest("button");
    if (button?.matches("[data-podium] .slot button")) this.pick(button.value);
    else if (button?.matches("[data-copy]")) {
      navigator.clipboard.writeText(byId("link").value).then(() => this.say(texts.copied));
    } else if (button?.matches("[data-share]")) {
      // Rejected when the voter thinks again: nothing to say.
      navigator.share({ title: document.title, url: byId("link").value }).catch(() => {});
    }
  }

  // Podium: the form's fields hold it, the grid shows it.

  get picks() { return all("[data-podium] select").map((select) => select.value).filter(Boolean); }

  /** What the podium's fields hold, if that is not what the server last wrote there. */
  get unsent() {
    const selects = all("[data-podium] select");
    const touched = selects.some(({ options, selectedIndex }) =>
      selectedIndex !== Math.max(0, [...options].findIndex((option) => option.defaultSelected)));
    return touched && selects.map((select) => select.value);
  }

  fillPodium(codes) {
    all("[data-podium] select").forEach((select, index) => { select.value = codes[index] ?? ""; });
  }

  pick(code) {
    const selects = all("[data-podium] select");
    const picks = this.picks;
    const name = [...selects[0].options].find((option) => option.value === code).dataset.name;
    if (picks.includes(code)) {
      picks.splice(picks.indexOf(code), 1);
      this.say(fill(texts.dropped, { name }), false);
    } else if (picks.length === selects.length) {
      this.say(texts.full);
    } else {
      picks.push(code);
      this.say(fill(texts.picked, { name, place: picks.length }), false);
    }
    this.fillPodium(picks);
    this.showPodium();
  }

  showPodium() {
    const picks = this.picks;
    for (const button of all("[data-podium] .slot button")) {
      const place = picks.indexOf(button.value);
      button.setAttribute("aria-pressed", String(place >= 0));
      const medal = button.querySelector(".medal");
      medal.hidden = place < 0;
      medal.textContent = place < 0 ? "" : place + 1;
    }
    for (const send of all("[data-podium] .primary")) send.disabled = this.state !== "open" || !picks.length;
  }
}

/** The rows of the standings in ``main``, as the server wrote them. */
function rowsOf(main) {
  return all(".row", main).map((row) => ({
    code: row.dataset.code,
    place: row.querySelector(".place").textContent,
    main: row.querySelector(".value b").textContent,
    small: row.querySelector(".value small").textContent,
    width: row.querySelector("rect").getAttribute("width"),
  }));
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const main = byId("main");
if (main.dataset.poll) new PollPage(main);
else localTimes();
