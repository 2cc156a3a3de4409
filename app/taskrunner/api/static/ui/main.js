// The page: who is signed in, which view is shown, when it is looked at again, what the keys do.

import { ask, get } from "./api.js";
import { Notices } from "./dialogs.js";
import { h, morph } from "./dom.js";
import { icon, logo } from "./icons.js";
import { Keys } from "./keys.js";
import { Live } from "./live.js";
import { failed, iconButton, loading, tick } from "./parts.js";
import { create } from "./create.js";
import { errors } from "./errors.js";
import { queues, types } from "./lots.js";
import { overview } from "./overview.js";
import { signin } from "./signin.js";
import { task } from "./task.js";
import { tasks } from "./tasks.js";
import { workers } from "./workers.js";

const VIEWS = { overview, tasks, errors, queues, types, workers };
const WORDS = { overview: "Overview", tasks: "Tasks", errors: "Errors", queues: "Queues", types: "Types", workers: "Workers" };
const IMPLIED = {
  admin: ["read", "payloads", "write", "work", "admin"],
  write: ["read", "payloads", "write"],
  payloads: ["payloads"],
  read: ["read"],
  work: ["work"],
};

class App {
  constructor() {
    this.notices = new Notices(document.getElementById("notices"));
    this.live = new Live({ look: () => this.look(), say: () => this.chrome() });
    this.session = { required: false, name: null, scopes: [] };
    this.view = null;
    this.state = {};
    this.error = null;
    this.loaded = false;
    this.visit = new AbortController();
  }

  get width() {
    return document.getElementById("main").clientWidth;
  }

  // What a chart says about the place under the pointer, or under the keys.
  tip(at, words = []) {
    const box = document.getElementById("tip");
    box.hidden = !at;
    if (!at) return;
    morph(
      box,
      words.map((text, index) => h("p", { class: index ? "" : "note" }, text)),
    );
    const place = at.getBoundingClientRect();
    const left = place.right + 12 + box.offsetWidth > innerWidth ? place.left - box.offsetWidth - 12 : place.right + 12;
    box.style.left = `${Math.max(4, left) + scrollX}px`;
    box.style.top = `${place.top + scrollY + 8}px`;
  }

  can(scope) {
    return this.session.scopes.some((one) => IMPLIED[one]?.includes(scope));
  }

  say(text, options) {
    this.notices.say(text, options);
  }

  async start() {
    addEventListener("hashchange", () => this.route());
    const keys = new Keys(this);
    this.help = () => keys.help();
    addEventListener("keydown", (event) => keys.key(event));
    let resized;
    addEventListener("resize", () => {
      clearTimeout(resized);
      resized = setTimeout(() => this.redraw(), 100);
    });
    setInterval(() => {
      if (!this.live.paused && !document.hidden) tick(document.getElementById("main"));
    }, 1000);
    await this.know();
    this.route();
  }

  // Who we are. A service without tokens lets everyone do everything.
  async know() {
    try {
      this.session = await get("/api/session");
    } catch {
      this.session = { required: false, name: null, scopes: ["admin"] }; // not to be had now: what is asked for next says why
    }
  }

  async leave() {
    await ask("DELETE", "/api/session");
    location.hash = "#/overview";
    await this.know();
    this.route();
  }

  // The words after the #: a path, and a query as everywhere: it can be bookmarked and sent to others.
  route() {
    const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    const parts = path
      .split("/")
      .filter(Boolean)
      .map((part) => {
        try {
          return decodeURIComponent(part);
        } catch {
          return part;
        }
      });
    const name = parts[0] ?? "overview";
    const id = parts[1];
    const view =
      !this.can("read") && this.session.required
        ? signin
        : name === "new"
          ? create
          : name === "tasks" && id
            ? task
            : (VIEWS[name] ?? overview);
    const same = view === this.view && id === this.id;
    this.query = new URLSearchParams(query);
    this.id = id;
    this.name = name;
    this.visit.abort();
    this.visit = new AbortController();
    if (!same || !view.stays) {
      this.state = view.begin?.(this) ?? {};
      this.loaded = false;
    }
    this.view = view;
    this.error = null;
    document.title = `${view.title(this)} · taskrunner`;
    if (view.quiet) this.live.stop();
    else this.live.start();
    this.chrome();
    if (!this.loaded) this.redraw();
    if (!same) {
      scrollTo(0, 0);
      (document.querySelector("#view [data-first]") ?? document.getElementById("title")).focus({ preventScroll: true });
    }
    this.look();
  }

  setQuery(pairs) {
    const words = new URLSearchParams(this.query);
    for (const [name, value] of Object.entries(pairs)) {
      words.delete(name);
      for (const one of [].concat(value ?? [])) if (one !== "") words.append(name, one);
    }
    const text = words.toString();
    location.hash = `#/${this.name}${text ? `?${text}` : ""}`;
  }

  // Ask, and show. A look that is overtaken by another visit says nothing any more.
  async look() {
    const { view, visit, state } = this;
    try {
      await view.load?.(this, state, visit.signal);
      if (visit !== this.visit) return;
      this.error = null;
      this.loaded = true;
    } catch (error) {
      if (visit !== this.visit || error.name === "AbortError") return;
      if (error.status === 401) {
        await this.know();
        if (this.session.required && !this.can("read")) this.route();
        return;
      }
      if (error.status === undefined) throw error;
      this.error = error;
    }
    this.live.looked({ pace: view.pace ?? 1000, every: view.every?.(state) ?? 10000 });
    this.redraw();
  }

  redraw() {
    const main = document.getElementById("view");
    const bad = this.error;
    if (!this.loaded && !this.view.early)
      morph(main, bad ? failed(bad, () => this.look()) : this.view.load ? loading() : this.view.draw(this, this.state));
    else if (bad && bad.status === 404) morph(main, failed(bad));
    else {
      const stale =
        bad &&
        h(
          "p",
          { class: "stale", role: "alert", key: "stale" },
          icon("errors"),
          `${sentence(bad.message)} This is what was there before; it is asked for again and again.`,
        );
      morph(main, stale, this.view.draw(this, this.state));
    }
    document.body.classList.toggle("old", Boolean(bad && this.loaded));
  }

  chrome() {
    const known = this.can("read") || !this.session.required;
    const here = this.view === task || this.view === create ? "tasks" : this.name;
    morph(document.getElementById("brand"), h("a", { href: "#/overview", class: "brand" }, logo(), h("span", {}, "taskrunner")));
    morph(
      document.getElementById("nav"),
      known &&
        Object.keys(VIEWS).map((name) =>
          h("a", { href: `#/${name}`, "aria-current": name === here ? "page" : null }, icon(name), h("span", {}, WORDS[name])),
        ),
    );
    const { paused, state } = this.live;
    const [kind, text] = paused
      ? ["paused", "Paused"]
      : state === "live"
        ? ["live", "Live"]
        : state === "away"
          ? ["away", "Reconnecting…"]
          : ["", "Connecting…"];
    morph(document.getElementById("title"), this.view?.title(this) ?? "");
    const who = this.session.name ?? "signed in";
    morph(
      document.getElementById("tools"),
      known &&
        !this.view?.quiet &&
        h(
          "button",
          {
            key: "live",
            type: "button",
            class: `pill ${kind}`,
            "aria-pressed": String(paused),
            click: () => this.live.pause(!paused),
            title: paused ? "Resume live updates (p)" : "Pause live updates (p)",
            "aria-label": paused ? "Live updates are paused: resume" : `${text}: pause live updates`,
          },
          h("i", {}),
          h("span", {}, text),
        ),
      known &&
        this.can("write") &&
        this.view !== create &&
        h(
          "a",
          { key: "new", class: "button primary", href: "#/new", title: "New task (n)", "aria-label": "New task" },
          icon("plus"),
          h("span", {}, "New task"),
        ),
      known &&
        !this.can("write") &&
        h("span", { key: "ro", class: "tag", title: "Your token may look and not change anything" }, icon("lock"), "Read only"),
      iconButton("Keyboard shortcuts", "keys", () => this.help(), { key: "help", class: "button plain square wide" }),
      iconButton("Light or dark", document.documentElement.dataset.theme === "dark" ? "sun" : "moon", () => this.theme(), { key: "theme" }),
      this.session.required && known && iconButton(`Sign out (${who})`, "leave", () => this.leave(), { key: "leave" }),
    );
  }

  theme() {
    const dark = document.documentElement.dataset.theme === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    try {
      localStorage.setItem("taskrunner-theme", dark ? "light" : "dark");
    } catch {
      /* private mode: for this page only */
    }
    this.chrome();
  }
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

let chosen = null;
try {
  chosen = localStorage.getItem("taskrunner-theme");
} catch {
  /* private mode */
}
document.documentElement.dataset.theme = chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => {
  document.documentElement.dataset.theme = event.matches ? "dark" : "light";
});
new App().start();
