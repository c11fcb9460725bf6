// The page works without this: it keeps what is shown up to date.
"use strict";
(() => {
  const main = document.querySelector("main[data-live]");
  const news = document.getElementById("news");
  let ahead = Number(document.body.dataset.now) - Date.now() / 1000, heard = Date.now(), waiting = new Map();

  const ago = (then) => {
    const past = Math.max(0, Date.now() / 1000 + ahead - then);
    if (past < 2) return "now";
    for (const [least, unit, text] of [[172800, 86400, "days"], [5400, 3600, "h"], [90, 60, "min"]])
      if (past >= least) return `${Math.floor(past / unit)} ${text} ago`;
    return `${Math.floor(past)} s ago`;
  };
  const clock = () => new Date(1000 * (Date.now() / 1000 + ahead)).toISOString().slice(11, 19);
  const tick = () => {
    for (const time of document.querySelectorAll("time[data-t]")) {
      const text = ago(Number(time.dataset.t));
      if (time.textContent !== text) time.textContent = text;
    }
  };
  const boxes = () => {
    for (const form of document.querySelectorAll("form.approve"))
      for (const button of document.querySelectorAll(`button[form="${form.id}"]`)) button.disabled = !form.checkValidity();
  };
  document.addEventListener("change", boxes);
  boxes();
  setInterval(tick, 1000);
  if (!main || !window.EventSource) return;

  const busy = (node) => node.contains(document.activeElement) && document.activeElement !== document.body
    || node.querySelector("input:checked, :popover-open") !== null;
  const put = (id, html) => {
    const node = document.getElementById(`part-${id}`);
    if (!node) return;
    if (busy(node) && node.querySelector("form, [popover]")) { waiting.set(id, html); return; }
    waiting.delete(id);
    const open = new Set([...node.querySelectorAll("details[open]")].map((d) => d.id));
    const focus = node.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const made = document.createElement("template");
    made.innerHTML = html;
    for (const d of made.content.querySelectorAll("details")) d.open = open.has(d.id);
    node.replaceChildren(made.content);
    if (focus) node.querySelector(`a[href="${CSS.escape(focus)}"]`)?.focus();
  };
  const alive = () => {
    heard = Date.now();
    document.documentElement.classList.remove("lost");
    document.documentElement.classList.add("lively");
    news.textContent = `updated ${clock()}`;
  };
  let source = null, over = false;
  const listen = () => {
    source = new EventSource(main.dataset.live);
    source.addEventListener("now", (e) => { ahead = Number(e.data) - Date.now() / 1000; alive(); });
    source.addEventListener("parts", (e) => {
      alive();
      for (const [id, html] of Object.entries(JSON.parse(e.data))) put(id, html);
      tick();
      boxes();
    });
    source.addEventListener("done", () => { source.close(); source = null; over = true; });
    source.addEventListener("end", () => { source.close(); source = null; location.reload(); });
  };
  listen();
  setInterval(() => {
    for (const [id, html] of [...waiting]) put(id, html);
    const silent = Math.round((Date.now() - heard) / 1000);
    if (silent < 20 || over) return;
    document.documentElement.classList.add("lost");
    news.textContent = `no news for ${silent} s, trying again; last ${new Date(heard + 1000 * ahead).toISOString().slice(11, 19)}`;
    if (source && source.readyState === EventSource.CLOSED && silent % 10 === 0) listen();
  }, 1000);
})();
