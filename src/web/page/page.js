// The page works without this. With it, results follow the typing, and arrow keys go through them.
"use strict";
const form = document.querySelector("form[role=search]");
const results = document.getElementById("results");
if (form && results) {
  let waiting = 0;
  let asking = null;
  const search = async () => {
    if (asking) asking.abort();
    asking = new AbortController();
    const query = new URLSearchParams(new FormData(form));
    try {
      const answer = await fetch("/?" + query, { signal: asking.signal });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const found = page.getElementById("results");
      if (found) results.replaceChildren(...found.childNodes);
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  };
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 150);
  });
}
document.addEventListener("keydown", (event) => {
  const links = [...document.querySelectorAll("tbody a.main")];
  const at = links.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
    document.querySelector("input")?.focus();
    event.preventDefault();
  } else if (step && links.length > 0 && (at >= 0 || document.activeElement.matches("input[type=search]"))) {
    links[Math.max(0, Math.min(links.length - 1, at + step))].focus();
    event.preventDefault();
  }
});
