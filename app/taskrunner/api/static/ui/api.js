// The service, as the page speaks to it: the same public API that everyone has.

import { learnClock, readJson } from "./format.js";

const PATIENCE = 20000; // milliseconds

// What went wrong, in the service's own words. status 0: it could not be reached.
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.error || `the service answered ${status}`);
    this.status = status;
    this.code = body.code;
    this.faults = body.errors ?? [];
  }
}

export async function ask(method, path, { json, text, headers, signal } = {}) {
  const body = text ?? (json === undefined ? undefined : JSON.stringify(json));
  const patience = AbortSignal.timeout(PATIENCE);
  let answer;
  let said;
  try {
    answer = await fetch(path, {
      method,
      body,
      cache: "no-store",
      credentials: "same-origin",
      headers: { ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      signal: signal && AbortSignal.any ? AbortSignal.any([signal, patience]) : patience,
    });
    said = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, { detail: patience.aborted ? "the service did not answer in time" : "the service cannot be reached" });
  }
  learnClock(answer.headers.get("Date"));
  let value = null;
  try {
    value = said ? readJson(said) : null;
  } catch {
    throw new Problem(answer.ok ? 502 : answer.status, {
      detail: `the answer of ${path} is not JSON: is something between this page and the service?`,
    });
  }
  if (!answer.ok) throw new Problem(answer.status, value ?? {});
  return value;
}

export const get = (path, options) => ask("GET", path, options);
export const post = (path, json = {}, options) => ask("POST", path, { json, ...options });

// A key that makes a create safe to send again. randomUUID is missing on plain http.
export function freshKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const query = (pairs) => {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(pairs)) for (const one of [].concat(value ?? [])) if (one !== "") words.append(name, one);
  return words.toString();
};

export const withQuery = (path, pairs) => {
  const words = query(pairs);
  return words ? `${path}?${words}` : path;
};
