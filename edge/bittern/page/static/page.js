"use strict";
// The page of `bittern serve`: pictures go to the server one by one, in the order in which they were given.
let models = [];
let shown = [];

const modelOf = (name) => models.find((model) => model.name === name);
const filter = () => new URLSearchParams([...new FormData($("filter"))].filter(([, value]) => value));

// --- pictures come in ---

let queue = Promise.resolve();
let waiting = 0;
let total = 0;

function add(files) {
  for (const file of files) {
    waiting += 1;
    total += 1;
    queue = queue.then(() => send(file)).finally(() => {
      waiting -= 1;
      if (!waiting) total = 0;
      showProgress();
    });
  }
  showProgress();
}

function showProgress() {
  $("progress").hidden = !waiting;
  $("progress").value = total ? (total - waiting) / total : 0;
}

async function send(file) {
  const name = file.name || "picture";
  try {
    const reply = await ask(`api/classify?keep=1&name=${encodeURIComponent(name)}`, { method: "POST", body: file });
    const rows = await reply.json();
    if (rows[0].error) throw new Error(rows[0].error);
    await load(true);
  } catch (error) {
    note(t("notRead", name, error.message));
  }
}

function note(text) {
  const line = h("p", {}, text);
  $("notes").append(line);
  if ($("notes").children.length > 5) $("notes").firstChild.remove();
}

for (const input of document.querySelectorAll("input[type=file]"))
  input.addEventListener("change", () => { add([...input.files]); input.value = ""; });
addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  add([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) { event.preventDefault(); add(files); }
});
$("camera").hidden = !matchMedia("(pointer: coarse)").matches;

// --- the list ---

// `fresh`: only what is new comes in front; else the whole list is made again.
async function load(fresh) {
  const query = filter();
  const history = await (await ask(`api/history?${query}`)).json();
  const known = new Map(shown.map((one) => [one.picture.id, one]));
  const list = $("pictures");
  if (!fresh) { list.replaceChildren(); shown = []; }
  for (const picture of [...history.pictures].reverse()) {
    if (fresh && known.has(picture.id)) continue;
    const one = card(picture);
    shown.unshift(one);
    list.prepend(one.element);
  }
  $("more").hidden = !(fresh ? !$("more").hidden || history.more : history.more);
  $("count").textContent = t("count", history.n);
  showEmpty([...query].length > 0);
  await showExport();
}

function showEmpty(filtered) {
  $("pictures").querySelector(".quiet.empty")?.remove();
  if (!shown.length) $("pictures").append(h("p", { class: "quiet empty" }, t(filtered ? "noneMatch" : "none")));
}

$("more").addEventListener("click", async () => {
  const query = filter();
  query.set("before", shown[shown.length - 1].picture.id);
  const history = await (await ask(`api/history?${query}`)).json();
  for (const picture of history.pictures) {
    const one = card(picture);
    shown.push(one);
    $("pictures").append(one.element);
  }
  $("more").hidden = !history.more;
});

// Tasks that have corrected pictures can be exported.
async function showExport() {
  const history = await (await ask("api/history?state=corrected&most=500")).json();
  const tasks = [...new Set(history.pictures.flatMap((picture) => Object.keys(picture.corrected)))].sort();
  $("export").replaceChildren(...tasks.map((task) =>
    h("a", { class: "button", href: `api/export.zip?task=${encodeURIComponent(task)}`, download: `${task}.zip` }, t("export", task))));
}

$("filter").addEventListener("submit", (event) => event.preventDefault());
let typing;
$("filter").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => load(false), 150); });

// --- one picture ---

function card(picture) {
  const here = `api/history/${picture.id}`;
  const answers = picture.answers.map((row) => answer(picture, row, here));
  const photo = h("div", { class: "photo" }, h("img", { src: `${here}/preview.jpg`, alt: t("preview", picture.name), loading: "lazy", width: picture.width, height: picture.height }));
  const side = Math.min(picture.width, picture.height);
  if (picture.width !== picture.height) {
    const square = h("div", { class: "square" });
    square.style.left = `${50 * (1 - side / picture.width)}%`;
    square.style.top = `${50 * (1 - side / picture.height)}%`;
    square.style.width = `${100 * side / picture.width}%`;
    square.style.height = `${100 * side / picture.height}%`;
    photo.append(square);
  }
  const element = h("article", { tabindex: 0, "aria-label": picture.name },
    h("div", { class: "head" }, h("h3", {}, picture.name),
      h("span", { class: "quiet" }, `${picture.width} x ${picture.height} · ${new Date(picture.time * 1000).toLocaleString(language)}`),
      h("button", { onclick: remove, "aria-label": t("removeName", picture.name) }, t("remove"))),
    photo, h("div", {}, answers.map((one) => one.element), h("p", { class: "quiet" }, t("hint"))),
    h("details", { class: "squares-of", ontoggle: (event) => event.target.open && squares(event.target, picture, here) }, h("summary", {}, t("squares"))));
  const one = { picture, element };
  async function remove() {
    await ask(here, { method: "DELETE" });
    const next = element.nextElementSibling || element.previousElementSibling;
    shown = shown.filter((other) => other !== one);
    element.remove();
    next?.focus();
    await load(true);
  }
  element.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const number = "123456789".indexOf(event.key);
    if (number >= 0) answers[0].choose(number);
    else if (event.key === "h") answers[0].heat();
    else if (event.key === "Delete") remove();
    else return;
    event.preventDefault();
  });
  return one;
}

function answer(picture, row, here) {
  const model = modelOf(row.model);
  const alarms = model ? model.alarm : [];
  const bars = h("div", { class: "bars" });
  const state = h("span", { "aria-live": "polite" });
  const input = h("input", { "aria-label": t("otherLabel"), placeholder: t("otherLabel"), maxlength: 100 });
  const place = h("div", {});
  const labels = () => [...new Set([...Object.keys(row.scores), ...(picture.corrected[row.task] ? [picture.corrected[row.task]] : [])])];

  async function correct(label) {
    const given = picture.corrected[row.task] === label ? null : label;
    try {
      picture.corrected = (await (await post(`${here}/label`, { task: row.task, label: given })).json()).corrected;
    } catch (error) {
      note(t("failed", error.message));
      return;
    }
    show();
    await showExport();
  }
  function show() {
    const corrected = picture.corrected[row.task];
    const focused = [...bars.children].indexOf(document.activeElement);
    bars.replaceChildren(...labels().map((label) => {
      const score = row.scores[label] ?? 0;
      const bar = h("i", {});
      bar.style.width = `${100 * score}%`;
      return h("button", { class: alarms.includes(label) ? "alarm" : "", "aria-pressed": String(corrected === label), "aria-label": t("isThis", label, percent(score)), onclick: () => correct(label) },
        bar, h("span", {}, label), h("span", {}, `${(100 * score).toFixed(1)} %`));
    }));
    if (focused >= 0) bars.children[Math.min(focused, bars.children.length - 1)].focus();
    state.replaceChildren(corrected === undefined ? "" : h("span", { class: "badge good" }, t("correctedTo", corrected)));
  }
  async function heat() {
    if (place.firstChild) { place.replaceChildren(); return; }
    place.append(h("progress", { "aria-label": t("working") }));
    try {
      const reply = await ask(`${here}/heat.png?model=${encodeURIComponent(row.model)}&task=${encodeURIComponent(row.task)}`);
      const about = JSON.parse(reply.headers.get("x-answer"));
      const words = [t("heatShown", about.label), about.faint ? t("faint") : null, about.at_ceiling ? t("ceiling") : null].filter(Boolean).join("; ");
      place.replaceChildren(h("figure", { class: "heat" }, h("img", { src: URL.createObjectURL(await reply.blob()), alt: words }), h("figcaption", {}, words)));
    } catch (error) {
      place.replaceChildren();
      note(t("notRead", picture.name, error.message));
    }
  }
  show();
  const other = h("form", { class: "other", onsubmit: (event) => { event.preventDefault(); const label = input.value.trim(); if (label) { input.value = ""; correct(label); } } },
    input, h("button", {}, t("ok")));
  return {
    element: h("section", { class: "answer", "aria-label": `${row.model}: ${row.task}` },
      h("p", {}, h("strong", {}, row.label), " ", row.alarm ? h("span", { class: "badge" }, t("alarm")) : null, " ", state,
        h("br"), h("span", { class: "quiet" }, `${row.model}${row.task === row.model ? "" : ` · ${row.task}`} · ${t("ms", row.time_ms.toFixed(1))}${row.view ? ` · ${t(row.view)}` : ""}`)),
      bars, h("div", { class: "tools" }, other, h("button", { class: "heat-of", onclick: heat }, t("heat"))), place),
    choose: (number) => { const label = labels()[number]; if (label !== undefined) correct(label); },
    heat,
  };
}

// The squares of each model that differs from the others in size, or in its answers.
async function squares(details, picture, here) {
  if (details.querySelector(".squares")) return;
  const names = [...new Set(picture.answers.map((row) => row.model))].filter(modelOf);
  for (const name of names) {
    const row = h("div", { class: "squares", role: "group", "aria-label": name });
    details.append(h("h4", {}, name), row);
    for (const view of picture.width > picture.height ? ["left", "center", "right"] : ["center"]) {
      const reply = await ask(`${here}/square.png?model=${encodeURIComponent(name)}&view=${view}`);
      const about = JSON.parse(reply.headers.get("x-answer"));
      const words = about.answers.map((one) => `${one.label} ${percent(one.score)} %`).join(", ");
      const exact = view === "center" ? `, ${t("exact", modelOf(name).size)}` : "";
      row.append(h("figure", { class: view }, h("img", { src: URL.createObjectURL(await reply.blob()), alt: `${name}, ${t(view)}: ${words}` }),
        h("figcaption", {}, `${t(view)}${exact}: ${words}`)));
    }
  }
}

// --- start ---

async function start() {
  models = await (await ask("api/models")).json();
  $("models").textContent = models.map((model) => model.name).join(", ");
  const labels = [...new Set(models.flatMap((model) => Object.values(model.tasks).flat()))];
  $("filter").elements.label.append(...labels.map((label) => h("option", { value: label }, label)));
  await load(false);
}
start();
