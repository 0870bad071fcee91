"use strict";
// The theme puts wide tables into boxes that scroll: a keyboard must reach them.
function reach() {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) box.tabIndex = 0;
}
new MutationObserver(reach).observe(document.body, { childList: true, subtree: true });
reach();
