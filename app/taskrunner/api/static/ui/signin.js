// Where a token is asked for.

import { post } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";

export const signin = {
  title: () => "Sign in",
  quiet: true,

  draw(app, state) {
    return h(
      "form",
      { class: "card signin", submit: (event) => enter(event, app, state) },
      icon("lock"),
      h("h2", {}, "Sign in"),
      h("p", {}, "This service is protected by API tokens. Yours stays in this browser's cookie, where no script can read it."),
      h(
        "label",
        { class: "field" },
        h("span", {}, "API token"),
        h("input", {
          type: "password",
          name: "token",
          "data-first": "",
          autocomplete: "current-password",
          required: true,
          spellcheck: "false",
          "aria-invalid": state.problem ? "true" : null,
        }),
      ),
      state.problem && h("p", { class: "problem", role: "alert" }, state.problem),
      h("button", { type: "submit", class: "button primary", disabled: state.busy }, "Sign in"),
      h("p", { class: "note" }, "An operator makes one with ", h("code", {}, "taskrunner token create NAME --scopes read"), "."),
    );
  },
};

async function enter(event, app, state) {
  event.preventDefault();
  state.busy = true;
  app.redraw();
  try {
    await post("/api/session", { token: new FormData(event.target).get("token").trim() });
    await app.know();
    if (app.can("read")) {
      app.route();
      return;
    }
    state.problem = "This token may not look at tasks: it needs the scope “read”.";
  } catch (error) {
    state.problem = error.status === 401 ? "This token is not known here, was revoked, or has expired." : error.message;
  }
  state.busy = false;
  app.redraw();
}
