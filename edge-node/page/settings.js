// What a person sets for this browser: the theme, kept; the admin token, for as long as the tab is open.

import { token } from "./api.js";
import { by } from "./element.js";

const THEME = "cleave-theme";
const THEMES = ["auto", "light", "dark"];

export function themes(changed) {
  const button = by("theme");
  const apply = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    changed();
  };
  const kept = () => (THEMES.includes(localStorage.getItem(THEME)) ? localStorage.getItem(THEME) : "auto");
  button.onclick = () => {
    localStorage.setItem(THEME, THEMES[(THEMES.indexOf(kept()) + 1) % THEMES.length]);
    apply(kept());
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  apply(kept());
}

export function tokens(changed) {
  const field = by("token");
  field.value = token.get();
  field.oninput = () => {
    token.set(field.value.trim());
    changed();
  };
}
