"use strict";
// Regions are sent as HTML that the server escaped; this script puts them in their places.
const connection = document.getElementById("connection");
const said = document.getElementById("said");
const waiting = new Map();

function isHeld(place) {
  const active = document.activeElement;
  const typing = active && place.contains(active) && active.matches("input, textarea, select");
  return typing || !document.getSelection().isCollapsed && place.contains(document.getSelection().anchorNode);
}

function keyOf(element) {
  return element.id || element.dataset.key || "";
}

function put(place, html) {
  const open = new Set([...place.querySelectorAll("details[open]")].map(keyOf));
  const boxes = new Map([...place.querySelectorAll("input[type=checkbox]")].map((box, i) => [i, box.checked]));
  const scrolls = [...place.querySelectorAll(".wide")].map((wide) => wide.scrollLeft);
  const focused = place.contains(document.activeElement) ? keyOf(document.activeElement) : "";
  place.innerHTML = html;
  for (const details of place.querySelectorAll("details")) {
    if (keyOf(details) && open.has(keyOf(details))) details.open = true;
  }
  place.querySelectorAll("input[type=checkbox]").forEach((box, i) => {
    if (boxes.has(i)) box.checked = boxes.get(i);
  });
  place.querySelectorAll(".wide").forEach((wide, i) => { wide.scrollLeft = scrolls[i] || 0; });
  reach(place);
  if (focused) {
    const again = [...place.querySelectorAll("[id], [data-key]")].find((one) => keyOf(one) === focused);
    if (again) again.focus({ preventScroll: true });
  }
}

// What scrolls must be reachable by keyboard.
function reach(place) {
  for (const wide of place.querySelectorAll(".wide, pre")) {
    if (wide.scrollWidth > wide.clientWidth) {
      wide.tabIndex = 0;
      const caption = wide.querySelector("caption");
      wide.setAttribute("role", "region");
      wide.setAttribute("aria-label", caption ? caption.textContent : "more to the right");
    }
  }
}

function take(regions) {
  for (const [name, html] of Object.entries(regions)) {
    const place = document.getElementById(name);
    if (!place || !place.hasAttribute("data-region")) continue;
    if (isHeld(place)) waiting.set(name, html);
    else { waiting.delete(name); put(place, html); }
  }
}

setInterval(() => {
  for (const [name, html] of waiting) {
    const place = document.getElementById(name);
    if (!isHeld(place)) { waiting.delete(name); put(place, html); }
  }
}, 500);

function tell(text, state) {
  if (connection.textContent !== text) connection.textContent = text;
  document.body.dataset.state = state;
}

const events = new EventSource("events");
events.onmessage = (event) => {
  const told = JSON.parse(event.data);
  take(told.regions);
  if (told.stale) tell("What is shown may be out of date: it could not be asked again.", "stale");
  else tell("Live.", "live");
};
events.onerror = () => tell("The connection is gone. This is the last state; trying again.", "gone");
events.addEventListener("over", () => {
  events.close();
  tell("It is over. This is the last state.", "over");
});

function ask(text) {
  const box = document.getElementById("question");
  box.querySelector("p").textContent = text;
  box.returnValue = "no";
  box.showModal();
  return new Promise((done) => {
    box.addEventListener("close", () => done(box.returnValue === "yes"), { once: true });
  });
}

function show(answer) {
  said.replaceChildren();
  const line = document.createElement("p");
  line.className = answer.ok ? "banner done" : "banner";
  line.textContent = answer.said;
  said.append(line);
  if (answer.secret) {
    const box = document.createElement("pre");
    box.tabIndex = 0;
    box.textContent = answer.secret;
    const once = document.createElement("p");
    once.className = "small";
    once.textContent = "Copy this now: it is shown once.";
    said.append(box, once);
  }
  said.scrollIntoView({ block: "nearest" });
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.action) return;
  event.preventDefault();
  const fields = new URLSearchParams(new FormData(form, event.submitter));
  if (form.dataset.confirm && !await ask(form.dataset.confirm)) return;
  const buttons = form.querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const answer = await fetch("do/" + encodeURIComponent(form.dataset.action), {
      method: "POST", body: fields, headers: { "X-Wardround": "1" },
    });
    const told = await answer.json();
    show(told);
    if (told.ok) form.reset();
  } catch (error) {
    show({ ok: false, said: "No answer came. Look at what is shown before you try again.", secret: "" });
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
});

// A file that is chosen is put into the text that is sent, so that it can be read before.
document.addEventListener("change", async (event) => {
  const into = event.target.dataset.fileInto;
  if (into && event.target.files.length) {
    document.getElementById(into).value = await event.target.files[0].text();
  }
});

reach(document);
