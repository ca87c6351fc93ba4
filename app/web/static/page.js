"use strict";

const RENDER_MS = 250;
const ANNOUNCE_MS = 5000;
const MEASURE_MS = 5000;
const SAID_MS = 2000;
const NUMBERS_CHARTED = 60;
const CHANGES_LISTED = 6;
const DIFFERENCES_LISTED = 8;
const CHARACTERS_SHOWN = 20_000;
const CHARACTERS_LISTED = 60;
const CHARACTERS_HUGE = 28;

const element = (id) => document.getElementById(id);
const urls = Object.fromEntries(
  Object.entries(document.body.dataset).map(([name, url]) => [name, new URL(url, document.baseURI).href]),
);

let changes = []; // the newest first; the first is the state; another list whenever one comes
let shown = null; // those that are on the page
const folded = new Set(); // the paths that are folded, kept when the state changes
let server = "connecting";
let status = null; // null until it is told
let topic = "kafka-state";
let clockAhead = 0; // of the server's, milliseconds
let measured = []; // of the inferences, the newest last
let renderTimer = null;

/* Following: all of it comes over one stream, which the browser's tabs share where they can. */

function follow() {
  const token = tokenOfTab();
  if (!window.SharedWorker) {
    new Follower(urls, token, take).run();
    return;
  }
  // a name for each token, so that none sees more than its own may
  const worker = new SharedWorker(urls.shared, { name: token });
  worker.port.onmessage = ({ data }) => take(data);
  worker.port.postMessage({ urls, token });
  window.onpagehide = () => worker.port.postMessage({ leaves: true });
  window.onpageshow = ({ persisted }) => persisted && worker.port.postMessage({ urls, token });
}

function take(message) {
  if (message.kind === "server") {
    server = message.server;
    clockAhead = message.clockAhead ?? clockAhead;
  }
  if (message.kind === "history") changes = withHistory(changes, message.states);
  if (message.kind === "state") changes = withState(changes, message.state);
  if (message.kind === "status") {
    ({ status } = message);
    ({ topic } = status);
  }
  if (message.kind === "history" || message.kind === "state") lookAtModel();
  render();
}

async function ask(url) {
  const headers = headersWith(tokenOfTab());
  const answer = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  return answer.ok ? answer : null;
}

async function lookAtModel() {
  if (!urls.models || changes.length === 0) return;
  const model = modelOf(changes[0].json);
  const path = model && ["models", model.name, "versions", model.version].map(encodeURIComponent).join("/");
  try {
    const answer = path && (await ask(`${urls.models}/${path}`));
    // of a model that has gone meanwhile nothing is shown: the event of the next one is on its way
    renderModel(model, answer ? await answer.json() : null);
  } catch {
    renderModel(model, null);
  }
}

/* Reads from /metrics how many inferences there were, and how many took no longer than each bound. */
async function measure() {
  const answer = document.hidden || element("model").hidden ? null : await ask(urls.metrics).catch(() => null);
  if (!answer) return;
  const within = new Map();
  const lines = (await answer.text()).matchAll(/^kafka_state_model_inference_seconds_bucket\{le="(.*)"\} (\S+)$/gm);
  for (const [, most, count] of lines) within.set(Number(most.replace("+Inf", "Infinity")), Number(count));
  measured = [...measured, { at: Date.now(), within }].slice(-12);
  render();
}

element("token").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, new FormData(event.target).get("token").trim());
  event.target.reset();
  server = "connecting";
  follow();
  render();
};

element("copy").onclick = async ({ currentTarget: button }) => {
  try {
    await navigator.clipboard.writeText(textOf(changes[0]));
    say(button, "copied");
  } catch {
    // browsers have a clipboard for pages over https, and where their reader lets them
    getSelection().selectAllChildren(element("state"));
    say(button, "selected");
  }
};

function say(button, word) {
  button.textContent = word;
  announce(`The state is ${word}`);
  setTimeout(() => (button.textContent = "copy"), SAID_MS);
}

/* A link has no token with it. */
document.querySelector("nav").onclick = async (event) => {
  if (!tokenOfTab() || !event.target.matches("[data-wants-token]")) return;
  event.preventDefault();
  const answer = await fetch(event.target.href, { headers: headersWith(tokenOfTab()) });
  location.assign(URL.createObjectURL(await answer.blob()));
};

/* Showing: whatever a message holds is text. */

function render() {
  renderTimer ??= setTimeout(() => {
    renderTimer = null;
    renderConnection();
    if (changes !== shown) {
      renderState();
      renderChanges();
      shown = changes;
    }
    renderOrigin();
    renderLag();
    renderInferences();
  }, RENDER_MS);
}

function connection() {
  const isKnown = changes.length > 0;
  if (server === "unauthorized") return ["away", tokenOfTab() ? "This token is not accepted" : "A token is needed", ""];
  if (server === "away") {
    return ["away", "This server does not answer", isKnown ? "This is the last known state." : "Trying again."];
  }
  if (server === "full") return ["away", "As many follow as may", "Waiting for a turn."];
  if (server === "connecting" || status === null) return ["connecting", "Connecting", ""];
  const { connected, partitions, partition_count: count, partitions_in_trouble: inTrouble, stale_seconds: stale } = status;
  const [worst] = partitions;
  const reason = status.reason ?? (inTrouble ? `partition ${worst.partition}: ${worst.error}` : "");
  if (!connected && !reason) return ["connecting", "Connecting to Kafka", ""];
  const confirmed = stale ? `; the end of the log was last confirmed ${spanOf(stale)} ago` : "";
  if (!connected || (inTrouble > 0 && inTrouble === count)) {
    return isKnown
      ? ["away", "Kafka is away", `This is the last known state${confirmed}; ${reason}`]
      : ["away", "Waiting for Kafka", reason];
  }
  if (inTrouble) return ["away", "Not all is read", `There may be a newer state${confirmed}; ${reason}`];
  if (stale) return ["away", "Stale", `This is the last known state${confirmed}.`];
  if (urls.models && isKnown && changes[0].offset === undefined) {
    return ["connecting", "No model yet", "Inferences are answered 503 until a message brings a model."];
  }
  return ["live", "Live", ""];
}

function renderConnection() {
  const [is, words, reason] = connection();
  if (element("connection").textContent !== words) announce(words);
  element("connection").dataset.is = is;
  show("connection", words);
  show("reason", reason);
  show("topic", topic);
  element("token").hidden = server !== "unauthorized";
  renderTrouble();
}

function renderTrouble() {
  const { refused = 0, last_refused: last, pending } = status ?? {};
  const count = refused === 1 ? "1 message was refused" : `${refused} messages were refused`;
  show("refused", last ? `${count}; the last, ${ageOf(Date.parse(last.at))}, ${whyOf(last)}` : "");
  show("pending", pending ? `A newer message does not load now, ${whyOf(pending)}` : "");
}

const whyOf = ({ partition, offset, reason, detail }) =>
  `at partition ${partition}, offset ${offset}: ${reason}: ${detail}`;

function renderState() {
  const [change] = changes;
  if (!change) return;
  const text = textOf(change);
  const left = text.length - CHARACTERS_SHOWN;
  const isHuge = text.length <= CHARACTERS_HUGE && !text.includes("\n");
  const state = element("state");
  state.classList.toggle("huge", isHuge);
  state.style.setProperty("--characters", Math.max(text.length, 3));
  const beginning = left > 0 ? `${text.slice(0, CHARACTERS_SHOWN)}…\n\n(${left} characters more)` : text;
  if (state.textContent !== beginning) {
    showFolding(state, beginning);
    announce(`The state is ${shortened(text)}`);
  }
  element("copy").hidden = isHuge;
  renderDifferences();
}

function renderOrigin() {
  const [change] = changes;
  if (!change) return;
  show("origin", originOf(change));
  document.title = `${shortened(textOf(change))} · ${topic}`;
}

/* Each line that opens an object or a list has a button which hides what is in it. */
function showFolding(state, text) {
  const lines = text.split("\n");
  const paths = pathsOf(lines);
  const spans = lines.map((line, index) => create("span", index < lines.length - 1 ? `${line}\n` : line));
  lines.forEach((line, index) => {
    if (!opens(line) || lines.length === 1) return;
    const length = lines.slice(index + 1).findIndex((other) => depthOf(other) <= depthOf(line));
    const inside = spans.slice(index + 1, index + 1 + Math.max(length, 0));
    const button = create("button", "", "fold");
    button.setAttribute("aria-label", "fold");
    button.title = `${inside.length} lines`;
    const showFolded = () => {
      const isFolded = folded.has(paths[index]);
      button.setAttribute("aria-expanded", String(!isFolded));
      inside.forEach((span) => foldedBy(span, button, isFolded));
    };
    button.onclick = () => {
      if (!folded.delete(paths[index])) folded.add(paths[index]);
      showFolded();
    };
    showFolded();
    spans[index].prepend(button);
  });
  state.replaceChildren(...spans);
}

const opens = (line) => /[[{]$/.test(line);
const depthOf = (line) => line.match(/^ */)[0].length;

/* Of each line: the keys, and the places in lists, that lead to it. */
function pathsOf(lines) {
  const within = []; // the lines that opened what this one is in, the outermost first
  return lines.map((line) => {
    const depth = depthOf(line);
    while (within.at(-1)?.depth >= depth) within.pop();
    const parent = within.at(-1) ?? { path: "", count: 0 };
    const key = line.match(/^ *("(?:[^"\\]|\\.)*"): /)?.[1] ?? parent.count++;
    const path = `${parent.path}/${key}`;
    if (opens(line)) within.push({ depth, path, count: 0 });
    return path;
  });
}

/* A line may be within several that are folded. */
function foldedBy(span, button, isFolded) {
  span.folders ??= new Set();
  if (isFolded) span.folders.add(button);
  else span.folders.delete(button);
  span.hidden = span.folders.size > 0;
}

function renderDifferences() {
  const [now, before] = changes
    .slice(0, 2)
    .map(({ json, truncated }) => (truncated ? null : JSON.parse(json)));
  const isStructured = [now, before].every((value) => typeof value === "object" && value !== null);
  const found = isStructured && !modelOf(changes[0].json) ? differences(before, now) : [];
  const lines = found.slice(0, DIFFERENCES_LISTED).map((text) => create("li", text));
  if (found.length > lines.length) lines.push(create("li", `and ${found.length - lines.length} more`));
  element("differences").replaceChildren(...lines);
  element("differences").hidden = lines.length === 0;
}

function differences(before, now, path = "") {
  if (JSON.stringify(before) === JSON.stringify(now)) return [];
  const areBoth = (test) => test(before) && test(now);
  const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
  if (!areBoth(isObject) && !areBoth(Array.isArray)) {
    return [`${path}: ${valueOf(before)} → ${valueOf(now)}`];
  }
  const keys = new Set([...Object.keys(before), ...Object.keys(now)]);
  return [...keys].flatMap((key) => {
    const at = Array.isArray(now) ? `${path}[${key}]` : path ? `${path}.${key}` : key;
    return differences(before[key], now[key], at);
  });
}

const valueOf = (value) => (value === undefined ? "nothing" : shortened(JSON.stringify(value)));

function originOf({ json, partition, offset, timestamp }) {
  if (offset === undefined) return `the initial value: ${topic} holds no valid message`;
  // the text "77" looks like the number
  const place = `${json[0] === '"' ? "text · " : ""}partition ${partition}, offset ${offset}`;
  if (timestamp < 0) return place;
  return `${place} · ${timeOf(timestamp)} · ${ageOf(timestamp)}`;
}

function renderChanges() {
  const listed = changes.slice(0, CHANGES_LISTED).map((change) => {
    const { offset, partition, timestamp } = change;
    const item = document.createElement("li");
    const isDated = offset !== undefined && timestamp >= 0;
    item.append(
      create("time", timeOf(isDated ? timestamp : servedAt(change))),
      create("span", shortened(textOf(change)), "value"),
      create("span", offset === undefined ? "initial" : `${partition}:${offset}`, "place"),
    );
    return item;
  });
  element("changes").replaceChildren(...listed);
  const other = changes.findIndex(({ json }) => !isNumber(json));
  const last = changes.slice(0, other < 0 ? NUMBERS_CHARTED : Math.min(other, NUMBERS_CHARTED));
  renderChart(last.map(({ json }) => Number(json)).reverse());
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
  const { partitions = [], partition_count: count = 0, lag } = status ?? {};
  const rows = partitions.map(({ partition, position, end, lag, error }) =>
    lagRow(partition, position, end, lag, error),
  );
  if (count > partitions.length) {
    const shown = partitions.reduce((sum, { lag }) => sum + lag, 0);
    rows.push(lagRow(`${count - partitions.length} more`, "", "", lag === null ? "" : lag - shown));
  }
  element("partitions").replaceChildren(...rows);
  element("lag").hidden = rows.length === 0;
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
  element("model").hidden = model === null;
  measure();
}

function renderInferences() {
  if (element("model").hidden) return;
  const served = `served for ${spanOf((Date.now() - clockAhead - servedAt(changes[0])) / 1000)}`;
  const [first, last] = [measured[0], measured.at(-1)];
  const since = (most) => (last.within.get(most) ?? 0) - (first.within.get(most) ?? 0);
  const count = measured.length > 1 ? since(Infinity) : 0;
  if (count <= 0) {
    const span = measured.length > 1 ? `, without an inference in the last ${spanOf((last.at - first.at) / 1000)}` : "";
    show("inferences", `${served}${span}`);
    return;
  }
  const rate = (count / (last.at - first.at)) * 1000;
  const most = [...last.within.keys()].sort((a, b) => a - b).find((most) => since(most) >= 0.99 * count);
  const within = most === Infinity ? "longer than can be told" : `within ${most * 1000} ms`;
  show("inferences", `${served}, ${rate.toPrecision(3)} inferences a second, 99 % of them ${within}`);
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
  if (!urls.models || json[0] !== "{" || !json.endsWith("}")) return null;
  const state = JSON.parse(json);
  return state.sha256 ? state : null;
}

const isNumber = (json) => /^-?\d/.test(json);

const textOf = (change) => (change.text ??= readable(change));

/* From the text and not from its value, for a number may have more digits than JavaScript keeps. */
function readable({ json, truncated }) {
  if (truncated) return `${json.replace(/^"/, "")}…`;
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

/* By the server's clock. */
const servedAt = ({ served_at: at, isOfServersClock }) => (isOfServersClock ? at : at - clockAhead);

function ageOf(timestamp) {
  const seconds = (Date.now() - clockAhead - timestamp) / 1000;
  return seconds < 0.5 ? "just now" : `${spanOf(seconds)} ago`;
}

function spanOf(seconds) {
  const rounded = Math.max(Math.round(seconds), 0);
  for (const [unit, length] of [["d", 86_400], ["h", 3600], ["min", 60]]) {
    if (rounded >= 2 * length) return `${Math.floor(rounded / length)} ${unit}`;
  }
  return `${rounded} s`;
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
setInterval(render, 1000);
setInterval(measure, MEASURE_MS);
