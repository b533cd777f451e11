// What pages can do besides working without it: tell the time zone, copy, send a form once, say what changed.
(() => {
  "use strict";
  document.documentElement.classList.add("js");

  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && /^[A-Za-z0-9_+\-/]{1,64}$/.test(zone)) {
    const secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `zone=${zone}; path=/; max-age=31536000; samesite=lax${secure}`;
  }

  const said = (button, word) => {
    button.textContent = word;
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    if (!navigator.clipboard) { said(button, "Select it"); return; }
    navigator.clipboard.writeText(button.dataset.copy).then(() => said(button, "Copied"), () => said(button, "Select it"));
  });

  // A second click on a button must not send the form a second time; coming back to the page makes it usable again.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "yes";
    form.setAttribute("aria-busy", "true");
  });
  window.addEventListener("pageshow", () => {
    document.querySelectorAll("form[data-sent]").forEach((form) => {
      delete form.dataset.sent;
      form.removeAttribute("aria-busy");
    });
  });

  // The part that changes is replaced every few seconds; a screen reader is told only when the sentence is another.
  let headline = document.getElementById("headline")?.textContent;
  const reached = (yes) => {
    const note = document.getElementById("unreached");
    if (note) note.hidden = yes;
  };
  document.addEventListener("htmx:afterSwap", () => {
    const now = document.getElementById("headline")?.textContent;
    const announce = document.getElementById("announce");
    if (announce && now && now !== headline) announce.textContent = now;
    headline = now;
  });
  document.addEventListener("htmx:afterRequest", (event) => reached(event.detail.successful));
})();
