// Before the page is drawn: the light or dark that was chosen here before.
"use strict";
try {
  const theme = localStorage.getItem("scaledreamer-gallery-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* a browser may keep nothing for pages on a disk */ }
