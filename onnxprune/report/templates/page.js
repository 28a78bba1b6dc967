"use strict";
(() => {
  const tip = document.getElementById("tip");
  let owner = null;

  const hide = () => {
    if (owner) owner.removeAttribute("aria-describedby");
    owner = null;
    tip.hidden = true;
  };

  // Beside the element, and inside the window.
  const show = (element) => {
    hide();
    owner = element;
    tip.textContent = element.dataset.tip;
    tip.hidden = false;
    if (!element.hasAttribute("aria-label")) element.setAttribute("aria-describedby", "tip");
    const box = element.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const below = box.bottom + 8 + own.height < innerHeight;
    const left = Math.min(box.left + Math.min(box.width / 2, 40), innerWidth - own.width - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - own.height - 8)}px`;
  };

  const told = (event) => event.target instanceof Element && event.target.closest("[data-tip]");
  addEventListener("mouseover", (event) => (told(event) ? show(told(event)) : hide()));
  addEventListener("focusin", (event) => (told(event) ? show(told(event)) : hide()));
  addEventListener("focusout", hide);
  addEventListener("scroll", hide, { passive: true });

  // One stop of the tab key for each chart; arrows go from one of its parts to the next.
  const parts = (group) => [...group.querySelectorAll("[data-tip]")];
  for (const group of document.querySelectorAll("[data-keys]")) {
    parts(group).forEach((part, index) => { part.tabIndex = index ? -1 : 0; });
  }
  const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const group = event.target instanceof Element && event.target.closest("[data-keys]");
    if (!group) return;
    const all = parts(group);
    const at = all.indexOf(event.target);
    const ends = { Home: 0, End: all.length - 1 };
    const to = event.key in ends ? ends[event.key] : at + (STEPS[event.key] ?? NaN);
    if (at < 0 || !(to in all)) return;
    event.preventDefault();
    all[at].tabIndex = -1;
    all[to].tabIndex = 0;
    all[to].focus();
  });

  // A model that was tried: the command that makes it.
  addEventListener("click", (event) => {
    const spot = event.target instanceof Element && event.target.closest("[data-command]");
    if (!spot) return;
    const figure = spot.closest("figure");
    for (const other of figure.querySelectorAll("[aria-pressed]")) other.removeAttribute("aria-pressed");
    spot.setAttribute("aria-pressed", "true");
    figure.querySelector("output").textContent = spot.dataset.command;
  });
})();
