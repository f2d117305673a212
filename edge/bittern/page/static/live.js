"use strict";
// The page of a running daemon: what it sees, scores and reports, and the review of what it was wrong about.
const SPAN_MS = 180000;
let heads = [];
let rows = []; // time in ms of the camera's clock, then the score of each alarm
let came = 0; // when the last of them came, by this page's clock
let alarms = [];
let detection = true;

const json = async (path) => (await ask(path)).json();
const clock = (time) => new Date(time).toLocaleTimeString(language);

function note(text) {
  $("notes").append(h("p", {}, text));
  if ($("notes").children.length > 3) $("notes").firstChild.remove();
}

async function guarded(work) {
  try {
    return await work();
  } catch (error) {
    note(t("failed", error.message));
  }
}

// --- the live picture: nobody looks while the page is hidden ---

let looking = true;
let again = 0;

// A proxy may take the boundary out of the type of a stream, as Home Assistant's ingress does: no browser shows that.
async function isCutStream() {
  const end = new AbortController();
  const reply = await fetch(`api/live.mjpg?${Date.now()}`, { signal: end.signal }).catch(() => null);
  end.abort();
  return reply?.ok && !reply.headers.get("content-type").includes("boundary");
}

function showSnapshot(image) {
  if (image.isConnected) image.src = `api/snapshot.jpg?${Date.now()}`;
}

function showPicture() {
  clearTimeout(again);
  const watching = looking && !document.hidden;
  const old = $("picture").querySelector("img");
  if (old) old.src = ""; // ends the stream, which removing it does not
  if (!watching) { $("picture").replaceChildren(h("p", { class: "quiet" }, t("notLooking"))); return; }
  const image = h("img", { alt: t("liveAlt"), src: `api/live.mjpg?${Date.now()}` });
  image.addEventListener("error", async () => {
    if (!image.isConnected) return;
    if (await isCutStream()) { image.onload = () => setTimeout(() => showSnapshot(image), 500); setTimeout(() => showSnapshot(image), 500); return; }
    if (!image.isConnected) return;
    $("picture").replaceChildren(h("p", { class: "quiet" }, t("noPicture")));
    again = setTimeout(showPicture, 5000);
  });
  $("picture").replaceChildren(image);
}
$("look").addEventListener("click", () => {
  looking = !looking;
  $("look").textContent = t(looking ? "stopLooking" : "look");
  showPicture();
});
document.addEventListener("visibilitychange", showPicture);

// --- events ---

let clips = new Set(); // ids of the alarms of which there is a clip

// Of the alarm with this id or, for a kept frame, of one in the same millisecond: an id begins with the time.
const clipAt = (id) => clips.has(id) ? id : [...clips].find((clip) => clip.slice(0, 13) === id.slice(0, 13));

// Shown as soon as there is a clip, some seconds after the alarm.
function clipLink(id, label, time) {
  const link = h("a", { class: "clip", "data-id": id, download: "", "aria-label": t("clipOf", label, clock(time)) }, t("saveClip"));
  showClip(link);
  return link;
}

function showClip(link) {
  const clip = clipAt(link.dataset.id);
  link.hidden = !clip;
  if (clip) link.href = `api/clips/${clip}.avi`;
}

function eventItem(event) {
  const words = event.type === "state" ? `${event.state.replaceAll("_", " ")}${event.detail ? `: ${event.detail}` : ""}`
    : event.type === "dropped" ? t("dropped", event.count)
      : `${event.label}: ${t(event.type === "alarm.on" ? "alarmOn" : "alarmOff")}${event.score === undefined ? "" : ` (${percent(event.score)} %)`}`;
  const item = h("li", {});
  if (event.snapshot) {
    const image = h("img", { src: `api/review/${event.id}.jpg`, alt: t("snapshotOf", event.label, clock(event.time)), loading: "lazy" });
    image.addEventListener("error", () => image.remove());
    item.append(image);
  }
  const badge = event.type === "alarm.on" ? h("span", { class: "badge" }, t("alarm")) : null;
  const clip = event.type === "alarm.on" && clipLink(event.id, event.label, event.time);
  item.append(h("div", {}, h("span", { class: "quiet" }, clock(event.time)), " ", badge, h("br"), words, clip ? [" ", clip] : []));
  return item;
}

function addClip(id) {
  clips.add(id);
  document.querySelectorAll(".clip").forEach(showClip);
}

function addEvent(event) {
  $("events").prepend(eventItem(event));
  while ($("events").children.length > 100) $("events").lastChild.remove();
  $("no-events").hidden = true;
}

// --- scores and thresholds ---

const SVG = "http://www.w3.org/2000/svg";
let pictures = [];

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const span = (seconds) => seconds < 120 ? t("seconds", Math.round(seconds)) : seconds < 7200 ? t("minutes", Math.round(seconds / 60)) : t("hours", (seconds / 3600).toFixed(1));
const digits = (score) => score.toFixed(4).replace(/0+$/, "").replace(/[.,]$/, "");

function scorePicture(alarm, number) {
  const line = svg("polyline", { class: "line" });
  const at = svg("line", { class: "at", x1: 0, x2: 1000 });
  const trying = svg("line", { class: "try", x1: 0, x2: 1000, visibility: "hidden" });
  const drawing = svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const score of [25, 50, 75]) drawing.append(svg("line", { class: "rule", x1: 0, x2: 1000, y1: score, y2: score }));
  drawing.append(line, at, trying);
  const name = heads.length > 1 || alarm.task !== alarm.model ? `${alarm.label} (${alarm.model}${alarm.task === alarm.model ? "" : ` · ${alarm.task}`})` : alarm.label;
  const slider = h("input", { type: "range", min: 1, max: 256, "aria-label": t("threshold", name) });
  const state = h("span", { class: "quiet" });
  const words = h("output", { class: "quiet" }, t("dragIt"));
  const use = h("button", { class: "first", hidden: true });
  const back = h("button", { hidden: true });
  let tried = null;
  let turn = 0;

  function y(score) { return 98 - 96 * score; }
  function attempt(value) {
    tried = value;
    slider.value = Math.round(value * 256);
    trying.setAttribute("y1", y(value));
    trying.setAttribute("y2", y(value));
    trying.setAttribute("visibility", "visible");
    use.hidden = false;
    use.textContent = t("use", digits(value));
    const mine = ++turn;
    setTimeout(() => mine === turn && guarded(async () => {
      const query = new URLSearchParams({ model: alarm.model, task: alarm.task, label: alarm.label, threshold: value });
      const trial = await json(`api/trial?${query}`);
      if (mine === turn) words.textContent = t(trial.alarms === 1 ? "trialOne" : "trial", digits(value), trial.alarms, span(trial.seconds));
    }), 150);
  }
  async function set(value) {
    turn += 1;
    tried = null;
    words.textContent = t("dragIt");
    await guarded(async () => showSettings(await (await post("api/thresholds", { model: alarm.model, task: alarm.task, label: alarm.label, threshold: value })).json()));
  }
  const of = (event) => {
    const box = drawing.getBoundingClientRect();
    const score = (0.98 - (event.clientY - box.top) / box.height) / 0.96;
    return Math.min(256, Math.max(1, Math.round(score * 256))) / 256;
  };
  drawing.addEventListener("pointerdown", (event) => { drawing.setPointerCapture(event.pointerId); attempt(of(event)); });
  drawing.addEventListener("pointermove", (event) => drawing.hasPointerCapture(event.pointerId) && attempt(of(event)));
  slider.addEventListener("input", () => attempt(slider.value / 256));
  use.addEventListener("click", () => set(tried));
  back.addEventListener("click", () => set(null));

  return {
    element: h("div", { class: "alarm-row" }, h("h3", {}, name, state), drawing,
      h("div", { class: "axis quiet" }, h("span", {}, t("ago", SPAN_MS / 60000)), h("span", {}, t("now"))),
      h("div", { class: "set" }, slider, words, use, back)),
    draw(now) {
      const points = rows.map((row) => `${(1000 * (1 - (now - row[0]) / SPAN_MS)).toFixed(1)},${y(row[number + 1]).toFixed(2)}`);
      line.setAttribute("points", points.join(" "));
    },
    show(setting) {
      for (const key of ["y1", "y2"]) at.setAttribute(key, y(setting.threshold));
      state.textContent = t("thresholdIs", digits(setting.threshold)) + (setting.set ? ` ${t("setHere")}` : "");
      back.hidden = !setting.set;
      back.textContent = t("configured", digits(setting.configured));
      if (tried === null) {
        slider.value = Math.round(setting.threshold * 256);
        trying.setAttribute("visibility", "hidden");
        use.hidden = true;
      }
    },
  };
}

function showSettings(settings) {
  detection = settings.detection;
  const names = (list) => JSON.stringify(list.map((alarm) => [alarm.model, alarm.task, alarm.label]));
  if (!pictures.length || names(alarms) !== names(settings.alarms)) {
    pictures = settings.alarms.map(scorePicture);
    $("scores").replaceChildren(...pictures.map((picture) => picture.element));
  }
  alarms = settings.alarms;
  alarms.forEach((alarm, number) => pictures[number].show(alarm));
  $("pause").hidden = false;
  $("pause").textContent = t(detection ? "pause" : "resume");
}
$("pause").addEventListener("click", () => guarded(async () => {
  showSettings(await (await post("api/detection", { on: !detection })).json());
  setTimeout(showHealth, 1000);
}));

function addScores(more) {
  if (rows.length && more[0][0] < rows[rows.length - 1][0]) rows = []; // another camera's clock
  if (more[0].length !== alarms.length + 1) return;
  rows.push(...more);
  came = performance.now();
  const first = rows.findIndex((row) => row[0] > rows[rows.length - 1][0] - SPAN_MS);
  if (first > 0) rows.splice(0, first);
}

setInterval(() => {
  if (document.hidden || !rows.length) return;
  const now = rows[rows.length - 1][0] + performance.now() - came;
  for (const picture of pictures) picture.draw(now);
}, 200);

// --- health ---

async function showHealth() {
  const reply = await fetch("api/health").catch(() => null);
  if (!reply) return;
  const health = await reply.json();
  document.title = `${health.name} · Bittern`;
  $("name").textContent = health.name;
  const known = `status_${health.status}` in TEXTS.en ? t(`status_${health.status}`) : health.status.replaceAll("_", " ");
  if ($("status").textContent !== known) $("status").textContent = known;
  $("status").classList.toggle("good", health.status === "ok");
  const parts = [];
  if (health.fps !== undefined) parts.push(t("fps", health.fps.toFixed(1)));
  if (health.latency_ms) parts.push(t("late", Math.round(health.latency_ms)));
  if (health.board?.temperature_c) parts.push(`${health.board.temperature_c.toFixed(0)} °C`);
  if (health.board?.throttled?.length) parts.push(health.board.throttled.join(", ").replaceAll("_", " "));
  if (health.models) parts.push(health.models.map((model) => `${model.name} ${model.version}`).join(", "));
  $("figures").textContent = parts.join(" · ");
}
setInterval(() => document.hidden || showHealth(), 5000);

// --- the stream ---

const HANDLERS = {
  event(event) {
    addEvent(event);
    if (event.snapshot) guarded(renewReview);
  },
  clip: ({ id }) => addClip(id),
  scores: addScores,
  settings: showSettings,
  models: () => guarded(begin),
};

// Server-sent events, but not by EventSource: its type, a text, is compressed by Home Assistant's ingress, and held back.
async function follow() {
  const reply = await fetch("api/stream", { headers: { accept: "application/octet-stream" } });
  if (!reply.ok) throw new Error(reply.statusText); // too many, or a token is needed
  $("offline").hidden = true;
  guarded(begin);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = "", part = await reader.read(); !part.done; part = await reader.read()) {
    const messages = (text + part.value).split("\n\n");
    text = messages.pop();
    for (const message of messages) {
      const { event, data } = Object.fromEntries(message.split("\n").map((line) => line.split(/: (.*)/)));
      queueMicrotask(() => HANDLERS[event]?.(JSON.parse(data)));
    }
  }
}

async function followAlways() {
  for (;;) {
    await follow().catch(() => {});
    $("offline").hidden = false;
    await new Promise((done) => setTimeout(done, 3000));
  }
}

async function begin() {
  heads = await json("api/models");
  const scores = await json(`api/scores?seconds=${SPAN_MS / 1000}`);
  rows = [];
  showSettings(await json("api/thresholds"));
  if (scores.rows.length) addScores(scores.rows);
  clips = new Set(await json("api/clips"));
  const events = await json("api/events");
  $("events").replaceChildren();
  events.slice(-100).forEach(addEvent);
  showHealth();
  await renewReview();
}

// --- review ---

let items = [];
let before = null;
let more = false;
let sets = {}; // how many pictures have a label, by task
const selected = new Set();
let anchor = 0;

const tasks = () => [...new Set(heads.map((head) => head.task))];
function task() {
  const chosen = items.filter((item) => selected.has(item.id) && item.task);
  return (chosen[0] || items.find((item) => item.task))?.task || tasks()[0];
}
function labelsOf(name) {
  const labels = [...new Set(heads.filter((head) => head.task === name).flatMap((head) => head.labels))];
  const first = [...alarms.filter((alarm) => alarm.task === name).map((alarm) => alarm.label), ...items.map((item) => item.answer)];
  return labels.length <= 9 ? labels : [...new Set([...first.filter((label) => labels.includes(label)), ...labels])];
}

const fetchReview = () => {
  const query = new URLSearchParams({ most: 20, kind: $("kind").value, todo: $("todo").checked ? 1 : 0 });
  if (!$("kind").value) query.delete("kind");
  if (before) query.set("before", before);
  return json(`api/review?${query}`);
};

async function loadReview() {
  showReview(await fetchReview());
}

// Something came: who has selected pictures, also meanwhile, or looks at older ones keeps them.
async function renewReview() {
  const isBusy = () => before || selected.size;
  if (isBusy()) return;
  const page = await fetchReview();
  if (isBusy()) return;
  const focused = items[cellOf(document.activeElement)?.dataset.number]?.id;
  showReview(page);
  if (focused) focusCell(items.findIndex((item) => item.id === focused));
}

function showReview(page) {
  items = page.items;
  more = page.more;
  sets = page.sets;
  selected.clear();
  anchor = 0;
  $("count").textContent = t("count", page.n);
  $("nothing").hidden = items.length > 0;
  $("next").disabled = !more;
  $("newest").disabled = !before;
  showGrid();
}

function showGrid() {
  $("grid").replaceChildren(...items.map((item, number) => {
    const labels = Object.values(item.labels);
    const when = new Date(item.time_ms).toLocaleString(language);
    const answer = item.answer ? `${item.answer}${item.score === null ? "" : ` ${percent(item.score)} %`}` : "";
    const image = h("img", { src: `api/review/${item.id}.jpg`, alt: "", loading: "lazy" });
    const button = h("button", { onclick: (event) => choose(number, event.shiftKey) }, image,
      h("span", { class: item.kind === "alarm" ? "badge" : "badge good" }, t(item.kind === "alarm" ? "alarm" : "doubt")), " ",
      labels.length ? h("span", { class: "badge good" }, `✓ ${labels.join(", ")}`) : null,
      h("span", {}, answer), h("span", { class: "quiet" }, when));
    return h("div", { "data-number": number }, button, item.kind === "alarm" ? clipLink(item.id, item.answer, item.time_ms) : null);
  }));
  showSelected();
}

function showSelected() {
  [...$("grid").children].forEach((cell, number) => cell.firstChild.setAttribute("aria-pressed", String(selected.has(items[number].id))));
  $("selected").textContent = t("selected", selected.size);
  const name = task();
  const labels = name ? labelsOf(name) : [];
  const none = selected.size === 0;
  const input = h("input", { "aria-label": t("otherLabel"), placeholder: t("otherLabel"), maxlength: 100, list: "known" });
  const wasFocused = $("labels").contains(document.activeElement) ? [...$("labels").children].indexOf(document.activeElement) : -1;
  $("labels").replaceChildren(
    ...labels.slice(0, 9).map((label, number) => h("button", { class: "first", disabled: none, onclick: () => give(label) }, `${number + 1} ${label}`)),
    h("form", { class: "other", onsubmit: (event) => { event.preventDefault(); const label = input.value.trim(); if (label) give(label); } }, input, h("button", { disabled: none }, t("ok")), h("datalist", { id: "known" }, labels.map((label) => h("option", { value: label })))),
    h("button", { disabled: none, onclick: () => give(null) }, t("takeBack")),
    ...Object.keys(sets).map((one) => h("a", { class: "button", download: "", href: `api/export.zip?${new URLSearchParams({ task: one })}` }, t("export", one))));
  if (wasFocused >= 0) $("labels").children[wasFocused]?.focus();
}

const cellOf = (element) => element?.closest("[data-number]");
const focusCell = (number) => $("grid").children[number]?.firstChild.focus();

function choose(number, range) {
  if (range) {
    const [from, to] = [Math.min(anchor, number), Math.max(anchor, number)];
    items.slice(from, to + 1).forEach((item) => selected.add(item.id));
  } else {
    anchor = number;
    const { id } = items[number];
    if (!selected.delete(id)) selected.add(id);
  }
  showSelected();
}

async function give(label) {
  if (!selected.size) return;
  const name = task();
  const ids = [...selected];
  await guarded(async () => {
    const done = await (await post("api/review", { ids, task: name, label })).json();
    sets = done.sets;
    if (done.gone.length) note(t("gone", done.gone.length));
    for (const item of items.filter((one) => selected.has(one.id) && !done.gone.includes(one.id))) {
      if (label === null) delete item.labels[name];
      else item.labels[name] = label;
    }
    const focused = cellOf(document.activeElement)?.dataset.number;
    selected.clear();
    showGrid();
    if (focused !== undefined) focusCell(focused);
  });
}

async function turn(to) {
  before = to;
  await guarded(loadReview);
  focusCell(0);
}

$("kind").addEventListener("change", () => { before = null; guarded(loadReview); });
$("todo").addEventListener("change", () => { before = null; guarded(loadReview); });
$("newest").addEventListener("click", () => turn(null));
$("next").addEventListener("click", () => more && turn(items[items.length - 1].id));
$("all").addEventListener("click", chooseAll);

function chooseAll() {
  const whole = selected.size === items.length;
  selected.clear();
  if (!whole) items.forEach((item) => selected.add(item.id));
  showSelected();
}

$("review").addEventListener("keydown", (event) => {
  if (event.target.closest("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const cell = cellOf(event.target);
  const number = cell ? Number(cell.dataset.number) : -1;
  const columns = getComputedStyle($("grid")).gridTemplateColumns.split(" ").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const digit = "123456789".indexOf(event.key);
  if (step && number >= 0) {
    const target = number + step;
    if (target < 0 || target >= items.length) return;
    if (event.shiftKey) { if (!selected.size) anchor = number; choose(target, true); }
    focusCell(target);
  } else if (digit >= 0) {
    const label = labelsOf(task())[digit];
    if (label !== undefined) give(label);
  } else if (event.key === "a") chooseAll();
  else if (event.key === "n") { if (more) $("next").click(); }
  else if (event.key === "u") give(null);
  else if (event.key === "c") cell?.querySelector(".clip:not([hidden])")?.click();
  else if (event.key === "Escape") { selected.clear(); showSelected(); }
  else return;
  event.preventDefault();
});

$("look").textContent = t("stopLooking");
showPicture();
followAlways();
