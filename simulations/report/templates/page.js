"use strict";
// A fold-out is of no use on paper; the study file and wide tables are too long for it.
window.addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not(.file, .long)")) fold.open = true;
});
