"use strict";

const ANSWER_MS = 5000;
// the server says something every five seconds
const SILENT_MS = 8000;
const CHECK_MS = 30_000;
// how far another worker may be ahead of the one that the stream is from
const AHEAD_MS = 2000;
const AGAIN_MS = 1000;
const CONNECTIONS = 6; // that browsers have to a host
const LEAVE_MS = 1000;
const DEAD = "the stream has ended without a word";
const STATES_KEPT = 100; // the page's own limit, whatever STATE_HISTORY is
const KEPT_WHOLE = 2;
const CHARACTERS_KEPT = 10_000;

/* Follows the service over one stream, and tells: of its history, of each state, of how following
   goes, and whether it answers. A page has one, or shares it with others in a worker. */
class Follower {
  constructor({ stream, state, history }, token, tell) {
    this.urls = { stream, state, history };
    this.headers = headersWith(token);
    this.tell = tell;
    this.version = null;
  }

  async run() {
    let server = "connecting";
    while (server !== "unauthorized") {
      server = await this.followOnce().catch(async (reason) => {
        if (reason === DEAD) await this.leaveDeadConnections();
        return "away";
      });
      this.tell({ kind: "server", server });
      // not all at once where many were cut off
      await pause(AGAIN_MS * (1 + Math.random()));
    }
  }

  async followOnce() {
    const stopping = new AbortController();
    const answer = await this.ask(this.urls.stream, { signal: stopping.signal });
    if (answer.status === 401) return "unauthorized";
    if (answer.status === 503) return "full";
    if (!answer.ok) return "away";
    const clockAhead = Date.now() - Date.parse(answer.headers.get("Date"));
    const checking = setInterval(() => this.check().catch(() => stopping.abort(DEAD)), CHECK_MS);
    let silence = null;
    const hear = () => {
      clearTimeout(silence);
      silence = setTimeout(() => stopping.abort(DEAD), SILENT_MS);
    };
    try {
      hear();
      await this.tellHistory();
      this.tell({ kind: "server", server: "answers", clockAhead });
      await this.read(answer.body.pipeThrough(new TextDecoderStream()).getReader(), hear);
    } finally {
      clearTimeout(silence);
      clearInterval(checking);
      stopping.abort();
    }
    return "connecting";
  }

  /* Rejects where the headers of an answer do not come in time. */
  async ask(url, { signal, ...options } = {}) {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), ANSWER_MS);
    try {
      return await fetch(url, {
        headers: this.headers,
        cache: "no-store",
        signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
        ...options,
      });
    } finally {
      clearTimeout(timer);
    }
  }

  async tellHistory() {
    const answer = await this.ask(this.urls.history);
    if (!answer.ok) return; // it may be turned off
    const states = statesOf(await answer.text());
    this.version = null; // what the stream begins with may be newer than the history
    this.tell({ kind: "history", states });
  }

  async read(reader, hear) {
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      hear();
      const events = (text + value).split("\n\n");
      text = events.pop();
      events.forEach((event) => this.take(event));
    }
  }

  take(event) {
    const fields = Object.fromEntries(
      event.split("\n").map((line) => [line.split(":", 1)[0], line.slice(line.indexOf(":") + 2)]),
    );
    if (fields.event === "status") this.tell({ kind: "status", status: JSON.parse(fields.data) });
    if (fields.event !== "state") return;
    this.version = fields.id;
    const json = fields.data.slice('{"state":'.length, -1);
    this.tell({ kind: "state", state: { json, ...placeOf(fields.id), served_at: Date.now() } });
  }

  /* Rejects where the server does not answer, or serves what the stream has not brought: somewhere
     between, a stream may end without a word. */
  async check() {
    if (await this.isCurrent()) return;
    await pause(AHEAD_MS);
    if (!(await this.isCurrent())) throw DEAD;
  }

  /* The browser's idle connections may be as dead, and it would try one after the other: use all now. */
  leaveDeadConnections() {
    const ask = () => this.ask(this.urls.state, { method: "HEAD", signal: AbortSignal.timeout(LEAVE_MS) });
    return Promise.allSettled(Array.from({ length: CONNECTIONS }, ask));
  }

  async isCurrent() {
    const { version } = this;
    const answer = await this.ask(this.urls.state, { method: "HEAD" });
    const served = answer.headers.get("ETag");
    return !answer.ok || served === null || served.includes(version) || version !== this.version;
  }
}

/* Their JSON as it is written, for a number may have more digits than JavaScript keeps. */
function statesOf(text) {
  const keepDigits = (_, value, context) =>
    typeof value === "number" && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
  const exact = JSON.parse(text, keepDigits).states;
  return JSON.parse(text).states.map(({ state, truncated, version, served_at }, index) => ({
    json: truncated ? state : JSON.stringify(exact[index].state),
    truncated,
    ...placeOf(version),
    served_at: Date.parse(served_at),
    isOfServersClock: true,
  }));
}

function placeOf(version) {
  const [, partition, offset, timestamp] = version.match(/^(\d+)-(\d+)-(-?\d+)/) ?? [];
  return { version, partition, offset, timestamp: Number(timestamp) };
}

/* The states with one more, the newest first. Where the history had it, that knows since when. */
function withState(states, state) {
  const before = states.find(({ version }) => version === state.version);
  const { served_at, isOfServersClock } = before ?? state;
  return withHistory(states, [{ ...state, served_at, isOfServersClock }]);
}

/* A worker that has just started has a short one. */
function withHistory(states, history) {
  const versions = new Set(history.map(({ version }) => version));
  return [...history, ...states.filter(({ version }) => !versions.has(version))].slice(0, STATES_KEPT).map(bounded);
}

/* Of all but the newest only the beginning, as the service's history has it. */
function bounded(state, index) {
  if (index < KEPT_WHOLE || state.truncated || state.json.length <= CHARACTERS_KEPT) return state;
  return { ...state, json: state.json.slice(0, CHARACTERS_KEPT), truncated: true };
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
