// Small drawings. Each state has a shape of its own: colour alone says nothing to those who do not see it.

import { svg } from "./dom.js";

const LINES = {
  overview: "M4 20V10M10 20V4M16 20v-7M22 20H2",
  tasks: "M9 6h12M9 12h12M9 18h12M4 6h.01M4 12h.01M4 18h.01",
  errors: "M12 3 2.5 20h19zM12 10v4M12 17h.01",
  queues: "M3 7l9-4 9 4-9 4zM3 12l9 4 9-4M3 17l9 4 9-4",
  types: "M4 4h7v7H4zM13 13h7v7h-7zM13 7.5h7M16.5 4v7M4 16.5h7",
  workers: "M3 5h18v6H3zM3 13h18v6H3zM7 8h.01M7 16h.01",
  plus: "M12 5v14M5 12h14",
  pause: "M8 5v14M16 5v14",
  play: "M7 4l13 8-13 8z",
  sun: "M12 8a4 4 0 100 8 4 4 0 000-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5L19 19M5 19l1.5-1.5M17.5 6.5L19 5",
  moon: "M20 14.5A8.5 8.5 0 019.5 4 8.5 8.5 0 1020 14.5z",
  keys: "M2 6h20v12H2zM6 10h.01M10 10h.01M14 10h.01M18 10h.01M7 14h10",
  search: "M11 4a7 7 0 100 14 7 7 0 000-14zM16.5 16.5L21 21",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  leave: "M14 4h6v16h-6M10 8l-4 4 4 4M6 12h10",
  retry: "M20 11a8 8 0 10-2.3 6M20 5v6h-6",
  cancel: "M12 3a9 9 0 100 18 9 9 0 000-18zM6 6l12 12",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v6M14 11v6",
  clock: "M12 3a9 9 0 100 18 9 9 0 000-18zM12 7v5l3 2",
  back: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  close: "M6 6l12 12M18 6L6 18",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 017 0v3",
  drain: "M12 3v11M7 10l5 5 5-5M4 20h16",
  check: "M5 12.5l4.5 4.5L19 7.5",
  inbox: "M3 13l3-8h12l3 8v6H3zM3 13h5l1.5 3h5L16 13h5",
};

export const icon = (name) => svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: LINES[name] }));

const circle = (props) => svg("circle", { cx: 8, cy: 8, r: 6, ...props });
const SHAPES = {
  PENDING: () => [circle({ class: "stroke", "stroke-dasharray": "2.6 2.2" })],
  QUEUED: () => [circle({ class: "stroke" }), svg("circle", { cx: 8, cy: 8, r: 2.2, class: "fill" })],
  RUNNING: () => [circle({ class: "stroke" }), svg("path", { d: "M8 2a6 6 0 010 12z", class: "fill" })],
  COMPLETED: () => [circle({ class: "fill r7" }), svg("path", { d: "M5 8.3l2.1 2.1L11 6.3", class: "hole" })],
  FAILED: () => [
    svg("path", { d: "M8 1.2L14.8 8 8 14.8 1.2 8z", class: "fill" }),
    svg("path", { d: "M8 4.8v3.6M8 11h.01", class: "hole" }),
  ],
  LIVE: () => [svg("circle", { cx: 8, cy: 8, r: 4, class: "fill" })],
  DRAINING: () => [svg("path", { d: "M8 3v7M4.8 7.2L8 10.4l3.2-3.2M4 13.5h8", class: "stroke" })],
  DEAD: () => [circle({ class: "stroke", r: 4 })],
  CANCELLED: () => [circle({ class: "stroke" }), svg("path", { d: "M4.2 11.8l7.6-7.6", class: "stroke" })],
};

export const shape = (status) =>
  svg("svg", { class: "shape", viewBox: "0 0 16 16", "aria-hidden": "true" }, (SHAPES[status] ?? SHAPES.PENDING)());

export const logo = () =>
  svg(
    "svg",
    { class: "logo", viewBox: "0 0 32 32", "aria-hidden": "true" },
    svg("rect", { width: 32, height: 32, rx: 9 }),
    svg("path", { d: "M8 11h7M6 16h7M8 21h7" }),
    svg("path", { d: "M17 9.5l8 6.5-8 6.5z", class: "arrow" }),
  );
