"use strict";
// A brush for masks. The labels of a slice travel as runs in a hidden field of the form, so that
// whatever is sent is what is seen. Without this script the page shows the image and changes nothing.
(() => {
  const COLOURS = [[0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66],
    [0, 114, 178], [213, 94, 0], [204, 121, 167], [255, 255, 255]];
  const OPACITY = 0.45;
  const MOST_STEPS = 50;

  function unpack(text, size) {
    const labels = new Uint8Array(size);
    let at = 0;
    for (const run of text.split(",")) {
      const [label, count] = run.split(":").map(Number);
      labels.fill(label, at, at + count);
      at += count;
    }
    return labels;
  }

  function pack(labels) {
    const runs = [];
    let start = 0;
    for (let at = 1; at <= labels.length; at++) {
      if (at === labels.length || labels[at] !== labels[start]) {
        runs.push(labels[start] + ":" + (at - start));
        start = at;
      }
    }
    return runs.join(",");
  }

  function begin(place) {
    const canvas = place.querySelector("canvas");
    const picture = place.querySelector("img");
    const status = place.querySelector("[role=status]");
    const field = place.querySelector("input[name=labels]");
    const classes = JSON.parse(place.dataset.brush);
    const { width, height } = canvas;
    const context = canvas.getContext("2d");
    const labels = unpack(field.value, width * height);
    const before = [];
    let label = 1, size = 3, cursor = { x: width >> 1, y: height >> 1 }, last = null;

    function say() {
      status.textContent = "Class " + label + " (" + classes[label] + "), brush of " + size + ", at " +
        cursor.x + ", " + cursor.y + ".";
    }

    function show() {
      context.drawImage(picture, 0, 0, width, height);
      const seen = context.getImageData(0, 0, width, height);
      for (let at = 0; at < labels.length; at++) {
        if (!labels[at]) continue;
        const colour = COLOURS[labels[at] % COLOURS.length];
        for (let plane = 0; plane < 3; plane++) {
          const place = at * 4 + plane;
          seen.data[place] = seen.data[place] * (1 - OPACITY) + colour[plane] * OPACITY;
        }
      }
      context.putImageData(seen, 0, 0);
      context.strokeStyle = "#fff";
      context.lineWidth = 1;
      const half = (size - 1) / 2;
      context.strokeRect(cursor.x - half - 0.5, cursor.y - half - 0.5, size + 1, size + 1);
      say();
    }

    function remember() {
      before.push(labels.slice());
      if (before.length > MOST_STEPS) before.shift();
    }

    function dab(x, y) {
      const half = (size - 1) / 2;
      for (let row = Math.ceil(y - half); row <= y + half; row++) {
        for (let column = Math.ceil(x - half); column <= x + half; column++) {
          if (row < 0 || column < 0 || row >= height || column >= width) continue;
          if ((row - y) ** 2 + (column - x) ** 2 <= half * half + 0.25) labels[row * width + column] = label;
        }
      }
    }

    function stroke(to) {
      const from = last || to;
      const steps = Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y), 1);
      for (let step = 0; step <= steps; step++) {
        dab(Math.round(from.x + (to.x - from.x) * step / steps), Math.round(from.y + (to.y - from.y) * step / steps));
      }
      last = to;
      field.value = pack(labels);
    }

    function where(event) {
      const box = canvas.getBoundingClientRect();
      return {
        x: Math.min(width - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * width))),
        y: Math.min(height - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * height))),
      };
    }

    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      remember();
      last = null;
      cursor = where(event);
      stroke(cursor);
      show();
    });
    canvas.addEventListener("pointermove", (event) => {
      cursor = where(event);
      if (event.buttons) stroke(cursor);
      show();
    });
    canvas.addEventListener("pointerup", () => { last = null; });

    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (moves[event.key]) {
        const [x, y] = moves[event.key];
        cursor = { x: Math.min(width - 1, Math.max(0, cursor.x + x)), y: Math.min(height - 1, Math.max(0, cursor.y + y)) };
      } else if (event.key === " ") {
        remember();
        last = null;
        stroke(cursor);
        last = null;
      } else if (event.key >= "0" && event.key <= "9") {
        if (Number(event.key) < classes.length) label = Number(event.key);
      } else if (event.key === "+") {
        size = Math.min(size + 2, 99);
      } else if (event.key === "-") {
        size = Math.max(size - 2, 1);
      } else if (event.key === "z" && before.length) {
        labels.set(before.pop());
        field.value = pack(labels);
      } else {
        return;
      }
      event.preventDefault();
      show();
    });

    if (picture.complete) show();
    else picture.addEventListener("load", show, { once: true });
  }

  function look() {
    for (const place of document.querySelectorAll("[data-brush]")) {
      if (place.dataset.begun) continue;
      place.dataset.begun = "yes";
      begin(place);
    }
  }

  // Digits press the buttons of classes, from anywhere but a field and the image.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, textarea, select, canvas, dialog *");
    if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key < "1" || event.key > "9") return;
    const button = document.querySelectorAll(".choices button")[Number(event.key) - 1];
    if (button && !button.disabled) { event.preventDefault(); button.click(); }
  });

  new MutationObserver(look).observe(document.getElementById("case"), { childList: true, subtree: true });
  look();
})();
