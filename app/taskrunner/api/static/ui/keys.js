// What the keys do.

import { tell } from "./dialogs.js";
import { h } from "./dom.js";

const KEYS = [
  ["g o", "Overview"],
  ["g t", "Tasks"],
  ["g e", "Errors"],
  ["g q", "Queues"],
  ["g y", "Types"],
  ["g w", "Workers"],
  ["n", "New task"],
  ["/", "Search"],
  ["j or k", "Next and previous row"],
  ["Enter", "Open the row"],
  ["x", "Select the row"],
  ["p", "Pause or resume live updates"],
  ["r", "Refresh"],
  ["?", "This help"],
];
const GOES = { o: "overview", t: "tasks", e: "errors", q: "queues", y: "types", w: "workers" };

export class Keys {
  #chord = false;

  constructor(app) {
    this.app = app;
  }

  help() {
    tell({
      title: "Keyboard",
      body: h(
        "dl",
        { class: "keys" },
        KEYS.map(([keys, does]) =>
          h(
            "div",
            {},
            h(
              "dt",
              {},
              keys.split(" ").map((one) => (one === "or" ? one : h("kbd", {}, one))),
            ),
            h("dd", {}, does),
          ),
        ),
      ),
    });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const done = this.press(event.key);
    if (done) event.preventDefault();
  }

  press(key) {
    if (this.#chord) {
      this.#chord = false;
      if (!(key in GOES)) return false;
      location.hash = `#/${GOES[key]}`;
      return true;
    }
    switch (key) {
      case "g":
        this.#chord = true;
        setTimeout(() => {
          this.#chord = false;
        }, 1500);
        return true;
      case "n":
        if (this.app.can("write")) location.hash = "#/new";
        return true;
      case "p":
        this.app.live.pause(!this.app.live.paused);
        return true;
      case "r":
        this.app.look();
        return true;
      case "?":
        this.help();
        return true;
      case "/": {
        const field = document.querySelector("[data-search]");
        if (field) field.focus();
        else location.hash = "#/tasks";
        return true;
      }
      case "j":
      case "k":
        return this.step(key === "j" ? 1 : -1);
      case "x": {
        const tickbox = document.activeElement?.closest("tr")?.querySelector("input[type=checkbox]");
        tickbox?.click();
        return Boolean(tickbox);
      }
      default:
        return false;
    }
  }

  step(by) {
    const rows = [...document.querySelectorAll("tbody tr a[data-row]")];
    const at = rows.findIndex((row) => row.closest("tr").contains(document.activeElement));
    rows[at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + by))]?.focus();
    return rows.length > 0;
  }
}
