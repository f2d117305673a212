"use strict";
// Every text of the pages, by language, and what the pages share. {0}, {1}: what is put in.
const TEXTS = {
  en: {
    name: "English", language: "Language", offline: "The server does not answer. Nothing is lost; this page tries again.",
    add: "Add pictures", drop: "Drop pictures here", choose: "Choose pictures", camera: "Take a picture",
    paste: "or paste one (Ctrl+V). They stay on this server.", working: "Classifying", history: "Pictures",
    search: "Search names and labels", state: "Which pictures", all: "All", corrected: "Corrected", withAlarm: "With an alarm",
    label: "Label", anyLabel: "Any label", more: "Show more", count: "Count: {0}", none: "No pictures yet.",
    noneMatch: "No picture matches the filter.", export: "Export {0} as zip", alarm: "alarm", ms: "{0} ms",
    isThis: "{0}, {1} %: choose this label", correctedTo: "corrected: {0}", hint: "Wrong? Tap the right label.",
    otherLabel: "Another label", ok: "OK", squares: "What the network sees", left: "left", center: "centre", right: "right",
    exact: "the exact {0} x {0} pixels", heat: "What does the answer depend on?", heatShown: "Heat of {0}: where covering a patch lowers the score",
    faint: "no single place matters much", ceiling: "score at its ceiling", remove: "Remove", removeName: "Remove {0}",
    notRead: "{0}: {1}", preview: "The picture {0}", undone: "correction taken back",
    pictures: "Pictures", grid: "Grid", single: "One by one", order: "Order", byName: "As listed", byLikeness: "By likeness",
    byDoubt: "Doubtful first", show: "Show", unlabelled: "Without a label", labelled: "With a label", skippedOnes: "Skipped", rejected: "Rejected",
    everything: "Everything", newLabel: "New label", addLabel: "Add a label", progress: "{0} of {1} decided", undo: "Undo", reject: "Reject", skip: "Skip",
    back: "Back", on: "On", selected: "{0} selected", done: "Nothing is left here.", saved: "saved", region: "Only this region", noRegion: "Whole picture",
    suggestion: "The model says {0}, {1} %", undoneN: "taken back: {0}", nothingToUndo: "nothing to take back", conflict: "Another tab has decided that; shown as it is now.",
    keys: "Keys: 1 to 9 a label, A and D (or arrows) back and on, U undo, X reject, S skip, G grid, N new label, Esc nothing selected. Drag a box to keep only a region. In the grid: click and shift-click select.",
    sorting: "sorting: {0} of {1}", scoring: "scoring: {0} of {1}", thumbOf: "{0}: {1}", noLabel: "no label", theLabels: "Labels", full: "Enlarge",
    failed: "Not saved: {0}",
    broken: "{0} cannot be read: reject or skip it.",
    live: "Live", stopLooking: "Stop looking", look: "Look", notLooking: "Nobody looks.", noPicture: "No picture: the daemon does not answer, or four look already. This page tries again.",
    liveAlt: "What the camera sees now", savePicture: "Save a picture", scoresNow: "Scores", threshold: "Threshold of {0}", thresholdIs: "threshold {0}", setHere: "(set here)",
    trial: "{0} would have raised {1} alarms in the last {2}.", trialOne: "{0} would have raised one alarm in the last {2}.", use: "Use {0}", configured: "Back to the configuration: {0}",
    dragIt: "Drag the line to try another threshold.", seconds: "{0} s", minutes: "{0} min", hours: "{0} h", ago: "{0} min ago", now: "now", events: "Events", noEvents: "No events yet.", dropped: "{0} events were dropped", alarmOn: "on", alarmOff: "off",
    snapshotOf: "Snapshot: {0}, {1}", saveClip: "Save the clip", clipOf: "Save the clip of {0}, {1}", pause: "Pause", resume: "Resume", review: "Review", both: "Alarms and doubtful frames", alarms: "Alarms", doubtful: "Doubtful frames", doubt: "doubtful",
    nothingToReview: "Nothing to review: the configuration needs [snapshots] or [keep], and something has to happen.", selectAll: "Select all (A)", newest: "Newest", nextOnes: "Next 20 (N)", takeBack: "Take back (U)", gone: "{0} pictures are gone already.",
    reviewKeys: "Keys: arrows move, Space selects, Shift selects a range, 1 to 9 a label, U take back, C save the clip, A all, N next, Esc nothing selected.", fps: "{0} frames/s", late: "{0} ms",
    status_ok: "watching", status_paused: "paused", status_starting: "starting", status_stuck: "stuck", status_no_answer: "no answer",
  },
  de: {
    name: "Deutsch", language: "Sprache", offline: "Der Server antwortet nicht. Nichts ist verloren; diese Seite versucht es weiter.",
    add: "Bilder hinzufügen", drop: "Bilder hier ablegen", choose: "Bilder auswählen", camera: "Bild aufnehmen",
    paste: "oder eines einfügen (Strg+V). Sie bleiben auf diesem Server.", working: "Wird klassifiziert", history: "Bilder",
    search: "Namen und Labels durchsuchen", state: "Welche Bilder", all: "Alle", corrected: "Korrigierte", withAlarm: "Mit Alarm",
    label: "Label", anyLabel: "Alle Labels", more: "Mehr anzeigen", count: "Anzahl: {0}", none: "Noch keine Bilder.",
    noneMatch: "Kein Bild passt zum Filter.", export: "{0} als Zip exportieren", alarm: "Alarm", ms: "{0} ms",
    isThis: "{0}, {1} %: dieses Label wählen", correctedTo: "korrigiert: {0}", hint: "Falsch? Tippe auf das richtige Label.",
    otherLabel: "Anderes Label", ok: "OK", squares: "Was das Netz sieht", left: "links", center: "Mitte", right: "rechts",
    exact: "die genauen {0} x {0} Pixel", heat: "Wovon hängt die Antwort ab?", heatShown: "Wärmebild zu {0}: wo das Abdecken den Wert senkt",
    faint: "keine einzelne Stelle zählt viel", ceiling: "Wert am Anschlag", remove: "Entfernen", removeName: "{0} entfernen",
    notRead: "{0}: {1}", preview: "Das Bild {0}", undone: "Korrektur zurückgenommen",
    pictures: "Bilder", grid: "Raster", single: "Einzeln", order: "Reihenfolge", byName: "Wie aufgelistet", byLikeness: "Nach Ähnlichkeit",
    byDoubt: "Zweifelhafte zuerst", show: "Zeige", unlabelled: "Ohne Label", labelled: "Mit Label", skippedOnes: "Übersprungene", rejected: "Verworfene",
    everything: "Alles", newLabel: "Neues Label", addLabel: "Label hinzufügen", progress: "{0} von {1} entschieden", undo: "Rückgängig", reject: "Verwerfen", skip: "Überspringen",
    back: "Zurück", on: "Weiter", selected: "{0} ausgewählt", done: "Hier ist nichts mehr übrig.", saved: "gesichert", region: "Nur dieser Ausschnitt", noRegion: "Ganzes Bild",
    suggestion: "Das Modell sagt {0}, {1} %", undoneN: "zurückgenommen: {0}", nothingToUndo: "nichts zurückzunehmen", conflict: "Ein anderer Tab hat das entschieden; hier steht der jetzige Stand.",
    keys: "Tasten: 1 bis 9 ein Label, A und D (oder Pfeile) zurück und weiter, U rückgängig, X verwerfen, S überspringen, G Raster, N neues Label, Esc nichts auswählen. Ein gezogener Rahmen behält nur einen Ausschnitt. Im Raster wählen Klick und Umschalt-Klick aus.",
    sorting: "wird sortiert: {0} von {1}", scoring: "wird bewertet: {0} von {1}", thumbOf: "{0}: {1}", noLabel: "ohne Label", theLabels: "Labels", full: "Vergrößern",
    failed: "Nicht gesichert: {0}",
    broken: "{0} ist nicht lesbar: verwirf oder überspringe es.",
    live: "Live", stopLooking: "Nicht mehr zusehen", look: "Zusehen", notLooking: "Niemand sieht zu.", noPicture: "Kein Bild: Der Dienst antwortet nicht, oder vier sehen schon zu. Diese Seite versucht es weiter.",
    liveAlt: "Was die Kamera jetzt sieht", savePicture: "Bild sichern", scoresNow: "Werte", threshold: "Schwelle von {0}", thresholdIs: "Schwelle {0}", setHere: "(hier gesetzt)",
    trial: "{0} hätte in den letzten {2} {1} Alarme ausgelöst.", trialOne: "{0} hätte in den letzten {2} einen Alarm ausgelöst.", use: "{0} verwenden", configured: "Zurück zur Konfiguration: {0}",
    dragIt: "Linie ziehen, um eine andere Schwelle zu probieren.", seconds: "{0} s", minutes: "{0} min", hours: "{0} h", ago: "vor {0} min", now: "jetzt", events: "Ereignisse", noEvents: "Noch keine Ereignisse.", dropped: "{0} Ereignisse wurden verworfen", alarmOn: "an", alarmOff: "aus",
    snapshotOf: "Schnappschuss: {0}, {1}", saveClip: "Clip sichern", clipOf: "Clip sichern: {0}, {1}", pause: "Pause", resume: "Weiter", review: "Durchsicht", both: "Alarme und Zweifelsfälle", alarms: "Alarme", doubtful: "Zweifelsfälle", doubt: "zweifelhaft",
    nothingToReview: "Nichts durchzusehen: Die Konfiguration braucht [snapshots] oder [keep], und etwas muss geschehen.", selectAll: "Alle auswählen (A)", newest: "Neueste", nextOnes: "Nächste 20 (N)", takeBack: "Zurücknehmen (U)", gone: "{0} Bilder sind schon weg.",
    reviewKeys: "Tasten: Pfeile bewegen, Leertaste wählt aus, Umschalt wählt einen Bereich, 1 bis 9 ein Label, U zurücknehmen, C Clip sichern, A alle, N nächste, Esc nichts auswählen.", fps: "{0} Bilder/s", late: "{0} ms",
    status_ok: "wacht", status_paused: "pausiert", status_starting: "startet", status_stuck: "hängt", status_no_answer: "keine Antwort",
  },
};

const stored = (() => { try { return localStorage.getItem("language"); } catch { return null; } })();
const language = [stored, ...navigator.languages.map((l) => l.slice(0, 2)), "en"].find((l) => l in TEXTS);

function t(key, ...values) {
  return TEXTS[language][key].replace(/\{(\d)\}/g, (_, i) => values[i]);
}

// An element; attributes that begin with "on" are listeners, children are elements or texts, never HTML.
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const $ = (id) => document.getElementById(id);
const percent = (score) => Math.round(score * 100);

// Asks the server, again and again while it does not answer; what it refuses is an Error with its words.
async function ask(path, options) {
  for (let wait = 1000; ; wait = Math.min(2 * wait, 8000)) {
    let reply;
    try {
      reply = await fetch(path, options);
    } catch {
      $("offline").hidden = false;
      await new Promise((done) => setTimeout(done, wait));
      continue;
    }
    $("offline").hidden = true;
    if (reply.status === 401) location.reload();
    if (reply.status === 503 && wait < 8000) {
      await new Promise((done) => setTimeout(done, wait));
      continue;
    }
    if (!reply.ok) {
      const text = await reply.text();
      let words = text;
      try {
        const answer = JSON.parse(text);
        words = (Array.isArray(answer) ? answer[0] : answer).error;
      } catch { /* no JSON: the text itself */ }
      throw Object.assign(new Error(words || reply.statusText), { status: reply.status });
    }
    return reply;
  }
}

const post = (path, value) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value) });

function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  for (const element of document.querySelectorAll("[data-t-placeholder]")) element.placeholder = t(element.dataset.tPlaceholder);
  const select = $("language");
  for (const [key, texts] of Object.entries(TEXTS)) select.append(h("option", { value: key, selected: key === language }, texts.name));
  select.addEventListener("change", () => {
    try { localStorage.setItem("language", select.value); } catch { /* only for this visit, then */ }
    location.reload();
  });
}
translate();

// The page opens even while the server does not answer. Browsers allow this on localhost and behind TLS only.
if (navigator.serviceWorker) {
  navigator.serviceWorker.register("sw.js").catch(() => {});
  navigator.serviceWorker.ready.then((registration) => {
    const files = [...document.querySelectorAll("script[src], link[href]")].map((element) => element.src || element.href);
    registration.active.postMessage([location.origin + location.pathname, ...files]);
  });
}
