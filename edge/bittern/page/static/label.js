"use strict";
// The page of `bittern data label`. A picture is called by its position, which never changes in a session.
const tab = Math.random().toString(36).slice(2);
const undecided = { state: "", label: "", box: null, number: 0 };
let names = [];
let decided = [];          // by position
let labels = [];           // offered, in the order of their keys
let thoughts = new Map();  // position -> [label, score]
let thought = 0;           // how many of the server's thoughts are here
let looked = 0;
let number = 0;            // of the last change that is here
let session = "";
let model = null;
let view = [];             // positions that are shown, in order
let at = 0;                // index in the view
let anchor = 0;            // where a shift-click begins
let selected = new Set();  // positions
let inGrid = false;
let box = null;            // drawn, in parts of the picture
let size = null;           // of the picture in pixels
let busy = Promise.resolve();

const pictureAt = (position, side) => `api/labels/${position}/picture.jpg?side=${side}&s=${session}`;
const LARGE = 1280;
const SMALL = 192;

// --- what the server says ---

function take(answer) {
  for (const [position, state, label, drawn, change] of answer.changes) {
    decided[position] = { state, label, box: drawn, number: change };
    if (label && !labels.includes(label)) labels.push(label);
  }
  number = Math.max(number, answer.number);
  if (answer.failed) say(t("failed", answer.failed), true);
}

function say(text, alarm) {
  $("note").textContent = text;
  $("note").classList.toggle("alarm", Boolean(alarm));
}

// One request after the other.
function inTurn(work) {
  busy = busy.then(work).catch((error) => say(t("failed", error.message), true));
  return busy;
}

async function decide(positions, state, label, drawn) {
  const seen = positions.map((position) => [position, decided[position].number]);
  const reply = await post("api/labels/decide", { tab, since: number, seen, state, label, box: drawn });
  const answer = await reply.json();
  take(answer);
  say(answer.conflicts.length ? t("conflict") : "", answer.conflicts.length > 0);
  return !answer.conflicts.length;
}

// --- decisions ---

// What is pressed before the next picture shows is not about that picture: it is left out.
let deciding = false;
function give(state, label) {
  if (deciding) return busy;
  deciding = true;
  return inTurn(async () => {
    if (inGrid) {
      if (!selected.size) return;
      await decide([...selected], state, label, null);
      selected.clear();
      arrange(true);
    } else {
      const position = view[at];
      if (position === undefined) return;
      const drawn = state === "labelled" && box ? await pixels(position, box) : null;
      if (await decide([position], state, label, drawn)) step(1, true);
      else showOne();
    }
    showAll();
  }).finally(() => { deciding = false; });
}

function undo() {
  return inTurn(async () => {
    const answer = await (await post("api/labels/undo", { tab, since: number })).json();
    take(answer);
    if (!answer.undone.length) { say(t("nothingToUndo")); return; }
    say(t("undoneN", answer.undone.length === 1 ? names[answer.undone[0]] : answer.undone.length));
    if (inGrid) {
      arrange(true);
      selected = new Set(answer.undone.filter((position) => view.includes(position)));
      drawGrid();
    } else {
      const place = view.indexOf(answer.undone[0]);
      if (place >= 0) at = place;
      else { view.splice(at, 0, answer.undone[0]); }
      showOne();
    }
    showAll();
  });
}

function newLabel(label) {
  label = label.trim();
  if (!label) return;
  if (!labels.includes(label)) labels.push(label);
  showAll();
}

// --- which pictures, and in which order ---

let orderOf = { name: null, positions: [] };

function fits(position) {
  const show = $("show").value;
  const { state, label } = decided[position];
  if (show === "") return true;
  if (show.startsWith("=")) return label === show.slice(1);
  return state === (show === "none" ? "" : show);
}

function arrange(stay) {
  const before = view[at];
  const positions = orderOf.positions.length ? orderOf.positions : names.map((_, i) => i);
  view = positions.filter(fits);
  const place = stay ? view.indexOf(before) : 0;
  at = Math.max(0, Math.min(place >= 0 ? place : at, view.length - 1));
  anchor = at;
  if (inGrid) layGrid();
  else showOne();
}

async function setOrder(by) {
  if (by === "name") orderOf.positions = [];
  else {
    try {
      const { order } = await (await ask(`api/labels/order?by=${by}`)).json();
      const there = new Set(order);
      orderOf.positions = [...order, ...names.map((_, i) => i).filter((i) => !there.has(i))];
    } catch (error) {
      if (error.status !== 409) throw error;
      say(t("sorting", looked, names.length));
      $("order").value = "name";
      orderOf.positions = [];
    }
  }
  arrange(false);
}

function step(by, decidedOnly) {
  at += by;
  // After a decision: on to the next picture that still fits.
  while (decidedOnly && at < view.length && !fits(view[at])) at += 1;
  at = Math.max(0, Math.min(at, decidedOnly ? view.length : view.length - 1));
  showOne();
}

// --- one picture ---

const ready = new Map();  // position -> image that is loaded or on its way

function image(position) {
  let one = ready.get(position);
  if (!one) {
    one = new Image();
    one.src = pictureAt(position, LARGE);
    one.addEventListener("error", () => { if (view[at] === position) say(t("broken", names[position]), true); });
    one.decode().catch(() => {});
    ready.set(position, one);
    if (ready.size > 24) ready.delete(ready.keys().next().value);
  }
  return one;
}

let ahead = 0;
function showOne() {
  const position = view[at];
  box = null;
  $("box").hidden = $("whole").hidden = true;
  $("frame").hidden = position === undefined;
  for (const id of ["reject", "skip"]) $(id).disabled = position === undefined;
  if (position === undefined) {
    $("name").textContent = t("done");
    $("state").textContent = "";
    $("suggestion").hidden = true;
    $("one").dataset.position = "";
    return;
  }
  const picture = image(position);
  picture.id = "photo";
  picture.alt = names[position];
  picture.draggable = false;
  $("photo").replaceWith(picture);
  if (picture.complete && !picture.naturalWidth) say(t("broken", names[position]), true);
  clearTimeout(ahead);
  ahead = setTimeout(() => { for (const next of [1, 2, 3, -1]) if (view[at + next] !== undefined) image(view[at + next]); }, 20);
  const { state, label, box: kept } = decided[position];
  $("name").textContent = names[position];
  $("state").textContent = state === "labelled" ? label : state ? t(state === "skipped" ? "skippedOnes" : "rejected") : t("noLabel");
  const idea = thoughts.get(position);
  $("suggestion").hidden = !idea;
  if (idea) $("suggestion").textContent = `${t("suggestion", idea[0], percent(idea[1]))} ⏎`;
  $("one").dataset.position = position;
  if (kept) showKept(position, kept);
  showLabels();
}

// The size of the whole picture: the shown one may be smaller.
async function sizeOf(position) {
  if (size?.position !== position) {
    const reply = await ask(pictureAt(position, LARGE));
    const [width, height] = reply.headers.get("x-size").split(" ").map(Number);
    size = { position, width, height };
  }
  return size;
}

async function pixels(position, [left, top, right, bottom]) {
  const { width, height } = await sizeOf(position);
  return [Math.floor(left * width), Math.floor(top * height), Math.min(width, Math.ceil(right * width)), Math.min(height, Math.ceil(bottom * height))];
}

async function showKept(position, [left, top, right, bottom]) {
  const { width, height } = await sizeOf(position);
  if (view[at] === position) drawBox([left / width, top / height, right / width, bottom / height]);
}

function drawBox(part) {
  box = part;
  const place = $("box").style;
  [place.left, place.top] = [`${100 * part[0]}%`, `${100 * part[1]}%`];
  [place.width, place.height] = [`${100 * (part[2] - part[0])}%`, `${100 * (part[3] - part[1])}%`];
  $("box").hidden = $("whole").hidden = false;
}

let from = null;
const inPicture = (event) => {
  const place = $("photo").getBoundingClientRect();
  return [(event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height].map((v) => Math.max(0, Math.min(1, v)));
};
$("frame").addEventListener("pointerdown", (event) => {
  if (event.button || !event.isPrimary) return;
  event.preventDefault();
  $("frame").setPointerCapture(event.pointerId);
  from = inPicture(event);
});
$("frame").addEventListener("pointermove", (event) => {
  if (!from) return;
  const to = inPicture(event);
  drawBox([Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])]);
});
$("frame").addEventListener("pointerup", () => {
  from = null;
  // A click is no box.
  if (box && (box[2] - box[0]) * $("photo").width < 8 || box && (box[3] - box[1]) * $("photo").height < 8) noBox();
});
$("frame").addEventListener("pointercancel", () => { from = null; });
function noBox() {
  box = null;
  $("box").hidden = $("whole").hidden = true;
}
$("whole").addEventListener("click", noBox);

// --- the grid: only the cells that can be seen exist ---

const cells = new Map();  // index in the view -> element
let columns = 1;
let side = 0;

function layGrid() {
  const width = $("many").clientWidth;
  columns = Math.max(2, Math.floor(width / (width < 600 ? 110 : 150)));
  side = Math.floor(width / columns);
  $("high").style.height = `${Math.ceil(view.length / columns) * (side + 20)}px`;
  for (const cell of cells.values()) cell.remove();
  cells.clear();
  drawGrid();
}

function drawGrid() {
  const many = $("many");
  const high = side + 20;
  const [top, height, focused] = [many.scrollTop, many.clientHeight, document.activeElement === many];
  const first = Math.max(0, Math.floor(top / high) - 1) * columns;
  const last = Math.min(view.length, (Math.ceil((top + height) / high) + 1) * columns);
  const free = [];  // cells out of sight are used again
  for (const [i, cell] of cells) if (i < first || i >= last) {
    free.push(cell);
    cells.delete(i);
  }
  for (let i = first; i < last; i++) {
    const position = view[i];
    let cell = cells.get(i);
    if (!cell) {
      cell = free.pop();
      if (!cell) {
        cell = h("div", { class: "cell", role: "option" }, h("img", { alt: "", draggable: "false", decoding: "async" }), h("span", {}));
        $("high").append(cell);
      }
      cell.firstChild.removeAttribute("src");
      cell.id = `cell-${i}`;
      cell.dataset.position = position;
      Object.assign(cell.style, { width: `${side}px`, height: `${high}px`, transform: `translate(${(i % columns) * side}px, ${Math.floor(i / columns) * high}px)` });
      cell.shown = null;
      cells.set(i, cell);
    }
    const { state, label } = decided[position];
    const idea = thoughts.get(position);
    const words = state === "labelled" ? label : state ? t(state === "skipped" ? "skippedOnes" : "rejected") : idea ? `${idea[0]}? ${percent(idea[1])} %` : "";
    const chosen = selected.has(position);
    const here = i === at && focused;
    const shown = `${words}/${state}/${chosen}/${here}`;
    if (cell.shown === shown) continue;
    cell.shown = shown;
    cell.lastChild.textContent = words || names[position];
    cell.lastChild.className = state ? "set" : "";
    cell.setAttribute("aria-label", t("thumbOf", names[position], words || t("noLabel")));
    cell.setAttribute("aria-selected", String(chosen));
    cell.classList.toggle("at", here);
  }
  for (const cell of free) cell.remove();
  if (cells.has(at)) many.setAttribute("aria-activedescendant", `cell-${at}`);
  else many.removeAttribute("aria-activedescendant");
  $("selection").textContent = selected.size ? t("selected", selected.size) : view.length ? "" : t("done");
  loading ||= setTimeout(loadCells, 60);
}

// Now and then, so that what is only scrolled past is never asked for.
let loading = 0;
function loadCells() {
  loading = 0;
  for (const cell of cells.values()) {
    const picture = cell.firstChild;
    if (!picture.hasAttribute("src")) picture.src = pictureAt(cell.dataset.position, SMALL);
  }
}

function select(i, shift, toggle) {
  if (shift) for (let j = Math.min(anchor, i); j <= Math.max(anchor, i); j++) selected.add(view[j]);
  else if (toggle && selected.has(view[i])) selected.delete(view[i]);
  else selected.add(view[i]);
  if (!shift) anchor = i;
  at = i;
  drawGrid();
}

function move(by, shift) {
  at = Math.max(0, Math.min(view.length - 1, at + by));
  if (shift) select(at, true);
  else anchor = at;
  const top = Math.floor(at / columns) * (side + 20);
  const many = $("many");
  if (top < many.scrollTop) many.scrollTop = top;
  if (top + side + 20 > many.scrollTop + many.clientHeight) many.scrollTop = top + side + 20 - many.clientHeight;
  drawGrid();
}

let drawing = 0;
$("many").addEventListener("scroll", () => { cancelAnimationFrame(drawing); drawing = requestAnimationFrame(drawGrid); });
$("many").addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  if (cell) select(view.indexOf(Number(cell.dataset.position)), event.shiftKey, true);
});
$("many").addEventListener("dblclick", (event) => {
  const cell = event.target.closest(".cell");
  if (!cell) return;
  at = view.indexOf(Number(cell.dataset.position));
  selected.clear();
  setMode(false);
});
addEventListener("resize", () => { if (inGrid) layGrid(); });

// --- around it ---

function showLabels() {
  const counts = new Map();
  for (const { label } of decided) if (label) counts.set(label, (counts.get(label) || 0) + 1);
  const here = !inGrid && view[at] !== undefined ? decided[view[at]].label : null;
  const strip = $("labels");
  if (!strip.firstChild) {
    const input = h("input", { id: "new", "aria-label": t("newLabel"), placeholder: t("newLabel"), maxlength: 100 });
    strip.append(h("form", { onsubmit: (event) => { event.preventDefault(); newLabel(input.value); input.value = ""; input.blur(); } }, input, h("button", { "aria-label": t("addLabel") }, "+")));
  }
  labels.forEach((label, i) => {
    if (i === strip.children.length - 1)
      strip.lastChild.before(h("button", { onclick: () => give("labelled", label) }, i < 9 ? h("kbd", {}, String(i + 1)) : null, label, " ", h("span", { class: "quiet" })));
    const button = strip.children[i];
    const count = String(counts.get(label) || 0);
    if (button.lastChild.textContent !== count) button.lastChild.textContent = count;
    button.setAttribute("aria-pressed", String(label === here));
  });
}

function showAll() {
  const done = decided.filter(({ state }) => state && state !== "skipped").length;
  $("progress").value = names.length ? done / names.length : 0;
  $("counts").textContent = t("progress", done, names.length);
  $("looked").textContent = looked < names.length ? `· ${t(model ? "scoring" : "sorting", looked, names.length)}` : "";
  showLabels();
  const select = $("show");
  const value = select.options.length ? select.value : "none";
  const options = [["none", t("unlabelled")], ["labelled", t("labelled")], ["skipped", t("skippedOnes")], ["rejected", t("rejected")], ["", t("everything")], ...labels.map((label) => [`=${label}`, label])];
  if (select.options.length !== options.length) {
    select.replaceChildren(...options.map(([key, text]) => h("option", { value: key }, text)));
    select.value = value;
    if (select.selectedIndex < 0) select.selectedIndex = 0;
  }
}

function setMode(grid) {
  inGrid = grid;
  $("one").hidden = grid;
  $("many").hidden = !grid;
  $("single").setAttribute("aria-pressed", String(!grid));
  $("grid").setAttribute("aria-pressed", String(grid));
  if (grid) {
    if (at >= view.length) at = Math.max(0, view.length - 1);
    layGrid();
    move(0);
    $("many").focus();
  } else {
    selected.clear();
    $("selection").textContent = "";
    showOne();
  }
  showLabels();
}

$("single").addEventListener("click", () => setMode(false));
$("grid").addEventListener("click", () => setMode(true));
$("show").addEventListener("change", () => { selected.clear(); arrange(false); });
$("order").addEventListener("change", () => setOrder($("order").value));
$("undo").addEventListener("click", undo);
$("back").addEventListener("click", () => step(-1));
$("on").addEventListener("click", () => step(1));
$("reject").addEventListener("click", () => give("rejected"));
$("skip").addEventListener("click", () => give("skipped"));
$("suggestion").addEventListener("click", suggest);

function suggest() {
  if (inGrid) return;
  const idea = thoughts.get(view[at]);
  if (idea) give("labelled", idea[0]);
}

addEventListener("keydown", (event) => {
  if (event.target.closest("input, select") || event.ctrlKey || event.metaKey || event.altKey) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const digit = "123456789".indexOf(event.key);
  const page = inGrid ? Math.max(1, Math.floor($("many").clientHeight / (side + 20))) * columns : 10;
  const moves = { ArrowLeft: -1, a: -1, ArrowRight: 1, d: 1, ArrowUp: inGrid ? -columns : 0, ArrowDown: inGrid ? columns : 0, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
  if (event.repeat && !moves[key]) { /* a key that is held is pressed once */ }
  else if (digit >= 0) { if (labels[digit] !== undefined) give("labelled", labels[digit]); }
  else if (moves[key]) inTurn(() => (inGrid ? move(moves[key], event.shiftKey) : step(moves[key])));
  else if (key === "u") undo();
  else if (key === "x") give("rejected");
  else if (key === "s") give("skipped");
  else if (key === "g") setMode(!inGrid);
  else if (key === "n") $("new").focus();
  else if (key === "Escape") { selected.clear(); noBox(); if (inGrid) drawGrid(); }
  else if (key === " " && inGrid && event.target === $("many")) select(at, event.shiftKey, true);
  else if (key === "Enter" && event.target.tagName !== "BUTTON" && !inGrid) suggest();
  else return;
  event.preventDefault();
});

// Other tabs decide too, and the model thinks on.
async function follow() {
  const answer = await (await ask(`api/labels/changes?since=${number}&thoughts=${thought}`)).json();
  const news = answer.changes.length || answer.thoughts.length || answer.looked !== looked;
  take(answer);
  for (const [position, label, score] of answer.thoughts) thoughts.set(position, [label, score]);
  thought += answer.thoughts.length;
  looked = answer.looked;
  if (news) {
    showAll();
    if (inGrid) drawGrid();
    else if (answer.changes.some((change) => change[0] === view[at])) showOne();
    else if (answer.thoughts.some((one) => one[0] === view[at])) showOne();
  }
}
setInterval(() => { if (!document.hidden) inTurn(follow); }, 2000);
addEventListener("focus", () => inTurn(follow));

async function start() {
  const all = await (await ask("api/labels")).json();
  ({ names, labels, session, model } = all);
  decided = names.map(() => undecided);
  take(all);
  showAll();
  const orders = [["name", t("byName")], ["likeness", t("byLikeness")], ...(model ? [["doubt", t("byDoubt")]] : [])];
  $("order").append(...orders.map(([key, text]) => h("option", { value: key }, text)));
  if (!decided.some(({ state }) => state === "")) $("show").value = "";
  await follow();
  if (model && thought) { $("order").value = "doubt"; await setOrder("doubt"); }
  else arrange(false);
  setMode(false);
}
inTurn(start);
