"use strict";

const RENDER_MS = 250;
const POLL_MS = 2000;
const ANSWER_MS = 5000;
const ANNOUNCE_MS = 5000;
const NUMBERS_CHARTED = 60;
const CHANGES_LISTED = 6;
const PARTITIONS_LISTED = 6;
const CHARACTERS_SHOWN = 20_000;
const CHARACTERS_LISTED = 60;
const CHARACTERS_HUGE = 28;

const { stream: streamUrl, status: statusUrl, models: modelsUrl } = document.body.dataset;
const element = (id) => document.getElementById(id);

let changes = []; // the newest first; the first is the state
let stream = null;
let status; // null while the server does not answer
let topic = "kafka-state";
let clockAhead = 0; // of the server's, milliseconds
let renderTimer = null;

/* Following: events come over the stream; how it goes, and whether anyone is there, by polling. */

function follow() {
  stream = new EventSource(streamUrl);
  stream.addEventListener("state", (event) => {
    changes.unshift(changeOf(event));
    changes.length = Math.min(changes.length, NUMBERS_CHARTED);
    if (modelsUrl) lookAtModel();
    render();
  });
  stream.onerror = () => {
    // it comes back by itself, but for an answer such as 503
    if (stream.readyState === EventSource.CLOSED) setTimeout(follow, 1000 + 2000 * Math.random());
  };
}

function changeOf(event) {
  const json = event.data.slice('{"state":'.length, -1);
  const [, partition, offset, timestamp] = event.lastEventId.match(/^(\d+)-(\d+)-(-?\d+)/) ?? [];
  return { json, partition, offset, timestamp: Number(timestamp), seen: Date.now() };
}

async function poll() {
  const wasAway = status === null;
  try {
    const answer = await fetch(statusUrl, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if (!answer.ok) throw new Error(`${answer.status}`);
    clockAhead = Date.now() - Date.parse(answer.headers.get("Date"));
    status = await answer.json();
    topic = status.topic;
  } catch {
    status = null;
  }
  if (wasAway && status && stream.readyState === EventSource.OPEN) restartStream();
  render();
  setTimeout(poll, POLL_MS);
}

async function lookAtModel() {
  const model = modelOf(changes[0].json);
  const path = model && ["models", model.name, "versions", model.version].map(encodeURIComponent).join("/");
  try {
    const answer = path && (await fetch(`${modelsUrl}/${path}`, { signal: AbortSignal.timeout(ANSWER_MS) }));
    // of a model that has gone meanwhile nothing is shown: the event of the next one is on its way
    renderModel(model, answer?.ok ? await answer.json() : null);
  } catch {
    renderModel(model, null);
  }
}

function restartStream() {
  // what was open while the server did not answer may be open on this side only
  stream.close();
  follow();
}

/* Showing: whatever a message holds is text. */

function render() {
  renderTimer ??= setTimeout(() => {
    renderTimer = null;
    renderConnection();
    renderState();
    renderChanges();
    renderLag();
  }, RENDER_MS);
}

function connection() {
  if (status === undefined) return ["connecting", "Connecting", ""];
  if (status === null) return ["away", "This server does not answer", "Trying again."];
  const error = status.last_error?.error ?? "";
  if (!status.connected_since && !error) return ["connecting", "Connecting to Kafka", ""];
  if (!status.connected_since && changes.length === 0) return ["away", "Waiting for Kafka", error];
  if (!status.connected_since) return ["away", "Kafka is away", `This is the last known state; ${error}`];
  if (stream.readyState !== EventSource.OPEN) return ["away", "The stream is closed", "Trying again."];
  return ["live", "Live", ""];
}

function renderConnection() {
  const [is, words, reason] = connection();
  if (element("connection").textContent !== words) announce(words);
  element("connection").dataset.is = is;
  show("connection", words);
  show("reason", reason);
  show("topic", topic);
}

function renderState() {
  const [change] = changes;
  if (!change) return;
  const text = readable(change.json);
  const left = text.length - CHARACTERS_SHOWN;
  const isHuge = text.length <= CHARACTERS_HUGE && !text.includes("\n");
  const state = element("state");
  state.classList.toggle("huge", isHuge);
  state.style.setProperty("--characters", Math.max(text.length, 3));
  const shown = left > 0 ? `${text.slice(0, CHARACTERS_SHOWN)}…\n\n(${left} characters more)` : text;
  if (state.textContent !== shown) {
    show("state", shown);
    announce(`The state is ${shortened(text)}`);
  }
  show("origin", originOf(change));
  document.title = `${shortened(text)} · ${topic}`;
}

function originOf({ json, partition, offset, timestamp }) {
  if (offset === undefined) return `the initial value: ${topic} holds no valid message`;
  // the text "77" looks like the number
  const place = `${json[0] === '"' ? "text · " : ""}partition ${partition}, offset ${offset}`;
  if (timestamp < 0) return place;
  return `${place} · ${timeOf(timestamp)} · ${ageOf(timestamp)}`;
}

function renderChanges() {
  const listed = changes.slice(0, CHANGES_LISTED).map(({ json, offset, partition, timestamp, seen }) => {
    const item = document.createElement("li");
    const isDated = offset !== undefined && timestamp >= 0;
    item.append(
      create("time", timeOf(isDated ? timestamp : seen)),
      create("span", shortened(readable(json)), "value"),
      create("span", offset === undefined ? "initial" : `${partition}:${offset}`, "place"),
    );
    return item;
  });
  element("changes").replaceChildren(...listed);
  renderChart(changes.map(({ json }) => (isNumber(json) ? Number(json) : NaN)).reverse());
}

function renderChart(numbers) {
  const chart = element("chart");
  const isShown = numbers.length > 1 && numbers.every(Number.isFinite);
  chart.toggleAttribute("hidden", !isShown);
  if (!isShown) return;
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const x = (index) => (600 * index) / (numbers.length - 1);
  // halves, for the whole may be more than a number holds
  const share = (number) => (number / 2 - low / 2) / (high / 2 - low / 2);
  const y = (number) => (high === low ? 60 : 112 - 104 * share(number));
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", numbers.map((number, index) => `${x(index)},${y(number)}`).join(" "));
  chart.replaceChildren(line);
  chart.setAttribute(
    "aria-label",
    `The last ${numbers.length} numbers: lowest ${low}, highest ${high}, now ${numbers.at(-1)}`,
  );
}

function renderLag() {
  const partitions = Object.entries(status?.partitions ?? {});
  const trouble = ({ error }) => Number(error != null);
  partitions.sort(
    ([, one], [, other]) => trouble(other) - trouble(one) || other.lag - one.lag,
  );
  const rows = partitions
    .slice(0, PARTITIONS_LISTED)
    .map(([partition, { position, end, lag, error }]) =>
      lagRow(partition, position, end, lag, error),
    );
  const others = partitions.slice(PARTITIONS_LISTED);
  if (others.length > 0) {
    const lag = others.reduce((sum, [, partition]) => sum + partition.lag, 0);
    rows.push(lagRow(`${others.length} more`, "", "", lag));
  }
  element("partitions").replaceChildren(...rows);
}

function renderModel(model, tensors) {
  const rows = (what, specs = []) =>
    specs.map(({ name, datatype, shape }) => {
      const row = document.createElement("tr");
      const head = create("th", name);
      head.scope = "row";
      row.append(head, create("td", what), create("td", datatype), create("td", JSON.stringify(shape)));
      return row;
    });
  element("tensors").replaceChildren(...rows("input", tensors?.inputs), ...rows("output", tensors?.outputs));
  show("file", model ? `${model.uri ?? "from the message"} · sha256 ${model.sha256}` : "");
  document.querySelector(".model").hidden = model === null;
}

function lagRow(partition, position, end, lag, error = null) {
  const row = document.createElement("tr");
  const head = create("th", partition);
  head.scope = "row";
  row.append(head, create("td", position), create("td", end), create("td", lag));
  row.classList.toggle("behind", lag > 0 || error != null);
  row.title = error ?? "";
  return row;
}

/* Words */

function show(id, text) {
  element(id).textContent = text;
  element(id).hidden = text === "";
}

function create(tag, text, name = "") {
  const created = document.createElement(tag);
  created.textContent = text;
  if (name) created.className = name;
  return created;
}

function modelOf(json) {
  if (!modelsUrl) return null;
  const state = JSON.parse(json);
  return state?.sha256 ? state : null;
}

const isNumber = (json) => /^-?\d/.test(json);

/* From the text and not from its value, for a number may have more digits than JavaScript keeps. */
function readable(json) {
  const model = modelOf(json);
  if (model) return `${model.name} ${model.version}`;
  if (json[0] === '"') return JSON.parse(json) || '""';
  let depth = 0;
  const line = () => `\n${"  ".repeat(Math.min(depth, 40))}`;
  return json.replace(/"(?:[^"\\]|\\.)*"|\[\]|\{\}|[[\]{},:]/g, (token) => {
    if (token[0] === '"') return JSON.stringify(JSON.parse(token));
    if (token === "[]" || token === "{}") return token;
    if (token === ",") return token + line();
    if (token === ":") return ": ";
    depth += token === "{" || token === "[" ? 1 : -1;
    return token === "{" || token === "[" ? token + line() : line() + token;
  });
}

function shortened(text) {
  const line = text.slice(0, 4 * CHARACTERS_LISTED).replace(/\s+/g, " ");
  return line.length > CHARACTERS_LISTED ? `${line.slice(0, CHARACTERS_LISTED)}…` : line;
}

function timeOf(timestamp) {
  const time = new Date(timestamp);
  if (Number.isNaN(time.valueOf())) return `timestamp ${timestamp}`;
  const isToday = time.toDateString() === new Date().toDateString();
  return isToday ? time.toLocaleTimeString() : time.toLocaleString();
}

function ageOf(timestamp) {
  const seconds = Math.max(Math.round((Date.now() - clockAhead - timestamp) / 1000), 0);
  for (const [unit, length] of [["d", 86_400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return seconds < 1 ? "just now" : `${seconds} s ago`;
}

let announced = -Infinity;
let toAnnounce = null;
function announce(text) {
  const isScheduled = toAnnounce !== null;
  toAnnounce = text;
  if (isScheduled) return;
  setTimeout(() => {
    show("announcement", toAnnounce);
    announced = Date.now();
    toAnnounce = null;
  }, Math.max(announced + ANNOUNCE_MS - Date.now(), 0));
}

follow();
poll();
setInterval(render, 1000);
