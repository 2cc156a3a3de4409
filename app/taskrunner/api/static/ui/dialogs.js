// Questions before something is done, words after it was, and the progress of what takes long.

import { h, morph } from "./dom.js";
import { count } from "./format.js";
import { button, iconButton } from "./parts.js";

// Resolves to what does() returned once it was confirmed and done; to null when it was dismissed. What goes wrong is said in the dialog.
export function confirm({ title, body, action, kind = "primary", does, focus }) {
  return new Promise((resolve) => {
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const go = h("button", { type: "submit", class: `button ${kind}` }, h("span", {}, action));
    const form = h(
      "form",
      {
        method: "dialog",
        submit: async (event) => {
          event.preventDefault();
          go.disabled = true;
          try {
            const done = await does(new FormData(form));
            dialog.close();
            resolve(done ?? true);
          } catch (error) {
            problem.textContent = error.message;
            problem.hidden = false;
            go.disabled = false;
          }
        },
      },
      h("h2", { id: "dialog-title" }, title),
      body,
      problem,
      h(
        "div",
        { class: "actions" },
        button("Cancel", () => dialog.close(), { kind: "plain" }),
        go,
      ),
    );
    const dialog = h(
      "dialog",
      {
        "aria-labelledby": "dialog-title",
        close: () => {
          dialog.remove();
          resolve(null);
        },
      },
      form,
    );
    document.body.append(dialog);
    dialog.showModal();
    (focus ? form.querySelector(focus) : go)?.focus();
  });
}

export function tell({ title, body }) {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "dialog-title", close: () => dialog.remove() },
    h(
      "form",
      {
        method: "dialog",
        submit: (event) => {
          event.preventDefault();
          dialog.close();
        },
      },
      h("h2", { id: "dialog-title" }, title),
      body,
      h("div", { class: "actions" }, h("button", { type: "submit", class: "button primary" }, "Close")),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}

// Short words at the edge of the page, which screen readers speak, too; those about something that goes on stay until it ends.
export class Notices {
  #shown = [];
  #number = 0;

  constructor(place) {
    this.place = place;
  }

  say(text, { kind = "", seconds = 5, href, label } = {}) {
    const one = { id: ++this.#number, text, kind, href, label };
    this.#shown.push(one);
    this.#draw();
    if (seconds) setTimeout(() => this.#drop(one), seconds * 1000);
  }

  // A notice with a bar: call it with { text, part, all } as it goes on, and with { text, kind, ends: true } at the end.
  progress(text) {
    const one = { id: ++this.#number, text, part: 0, all: 0, bar: true };
    this.#shown.push(one);
    this.#draw();
    return (news) => {
      Object.assign(one, news);
      if (news.ends) {
        one.bar = false;
        setTimeout(() => this.#drop(one), 8000);
      }
      this.#draw();
    };
  }

  #drop(one) {
    this.#shown = this.#shown.filter((other) => other !== one);
    this.#draw();
  }

  #draw() {
    morph(
      this.place,
      this.#shown
        .slice(-4)
        .map((one) =>
          h(
            "div",
            { class: `notice ${one.kind ?? ""}`, key: one.id },
            h("p", {}, one.text, one.href && [" ", h("a", { href: one.href }, one.label)]),
            one.bar &&
              h(
                "progress",
                one.all
                  ? { max: one.all, value: one.part, "aria-label": `${count(one.part)} of ${count(one.all)}` }
                  : { "aria-label": "under way" },
              ),
            !one.bar && iconButton("Dismiss", "close", () => this.#drop(one)),
          ),
        ),
    );
  }
}
