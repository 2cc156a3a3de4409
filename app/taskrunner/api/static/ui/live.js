// When to look again. Server-sent events say that something happened (a sample of what did: the page asks for the rest itself), and a slow
// clock goes on for what changes without an event. Nothing is asked while nobody looks.

const TRIES = 3000; // milliseconds until a broken stream is opened again

export class Live {
  #source = null;
  #last = 0;
  #timer = null;
  #again = null;
  #ticks = null;
  #running = false;
  #wanted = false;

  // look(): brings the page up to date. pace: at least so many milliseconds between two looks; every: at most.
  constructor({ look, say }) {
    this.look = look;
    this.say = say;
    this.pace = 1000;
    this.every = 10000;
    this.paused = false;
    this.state = "connecting";
    document.addEventListener("visibilitychange", () => this.#arrange());
  }

  start() {
    this.#wanted = true;
    this.#arrange();
  }

  stop() {
    this.#wanted = false;
    this.#arrange();
  }

  pause(paused) {
    this.paused = paused;
    this.#arrange();
    this.say();
  }

  // A view was opened: its rhythm counts from now.
  looked({ pace, every }) {
    this.pace = pace;
    this.every = every;
    this.#last = performance.now();
    this.#wait(every);
  }

  soon() {
    this.#wait(Math.max(0, this.#last + this.pace - performance.now()));
  }

  #arrange() {
    const on = this.#wanted && !this.paused && !document.hidden;
    if (on === this.#running) return;
    this.#running = on;
    if (on) {
      this.#open();
      this.soon();
    } else {
      this.#source?.close();
      clearTimeout(this.#timer);
      clearTimeout(this.#again);
      this.#timer = null;
    }
  }

  #open() {
    this.#source?.close();
    const source = new EventSource("/api/events?sample=true");
    this.#source = source;
    const happened = () => this.soon();
    source.addEventListener("live", happened);
    source.addEventListener("finished", happened);
    source.onopen = () => this.#be("live");
    source.onerror = () => {
      this.#be("away");
      if (source.readyState === EventSource.CLOSED && this.#running) this.#again = setTimeout(() => this.#open(), TRIES);
    };
  }

  #be(state) {
    if (this.state === state) return;
    this.state = state;
    this.say();
  }

  #wait(milliseconds) {
    if (!this.#running) return;
    const at = performance.now() + milliseconds;
    if (this.#timer !== null && this.#ticks <= at) return;
    clearTimeout(this.#timer);
    this.#ticks = at;
    this.#timer = setTimeout(async () => {
      this.#timer = null;
      this.#last = performance.now();
      await this.look();
      this.#last = Math.max(this.#last, performance.now() - this.pace / 2); // a slow service is asked less often
      this.#wait(this.every);
    }, milliseconds);
  }
}
