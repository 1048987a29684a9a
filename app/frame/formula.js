// Draws formulas and links their symbols with the sliders: pointing at one, or focusing it, lights up the other.

const LIT = { light: "#f6e3a1", dark: "#5a4a12" };
const CHANGED = { light: "#b34700", dark: "#ffa763" }; // 4.5 to 1 or better on the page
const WIDGET = /st-key-form-(\w+?)-(\w+)-(?:widget|text)(?:\s|$)/;

const linked = new WeakMap(); // mount point -> what takes its listeners away

/** The field of the parameter form that an element is inside of, if it is of this lab. */
function fieldAt(element, lab) {
  const box = element instanceof Element ? element.closest(`[class*="st-key-form-${lab}-"]`) : null;
  const found = box && [...box.classList].map((name) => name.match(WIDGET)).find((match) => match?.[1] === lab);
  return found ? found[2] : null;
}

function boxOf(lab, name) {
  return document.querySelector(`.st-key-form-${lab}-${name}-widget, .st-key-form-${lab}-${name}-text`);
}

function isDark(element) {
  const probe = document.createElement("span");
  probe.style.color = "var(--st-background-color)";
  element.append(probe);
  const [red, green, blue] = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128;
}

export default function ({ data, parentElement }) {
  let root = parentElement.querySelector(".formulas");
  if (!root) {
    root = document.createElement("div");
    root.className = "formulas";
    parentElement.append(root);
  }
  root.dataset.present = String(data.present);
  if (root.dataset.html !== data.html) {
    root.innerHTML = data.html; // written by the server from the lab's own formulas, with every word escaped
    root.dataset.html = data.html;
  }
  const theme = isDark(root) ? "dark" : "light";
  root.style.setProperty("--lit", LIT[theme]);
  root.style.setProperty("--changed", CHANGED[theme]);

  const light = (name) => {
    for (const symbol of root.querySelectorAll(".symbol")) symbol.classList.toggle("lit", symbol.dataset.name === name);
  };
  const point = (name) => {
    for (const box of document.querySelectorAll(".linked-field")) box.classList.remove("linked-field");
    if (name) boxOf(data.lab, name)?.classList.add("linked-field");
  };
  const onField = (event) => light(fieldAt(event.target, data.lab));
  const onSymbol = (event) => {
    const name = event.target instanceof Element ? event.target.closest(".symbol")?.dataset.name : null;
    light(name ?? null);
    point(name ?? null);
  };
  const away = () => (light(null), point(null));
  const pick = (event) => {
    const name = event.target instanceof Element ? event.target.closest(".symbol")?.dataset.name : null;
    boxOf(data.lab, name)?.querySelector('[role="slider"], input, [role="combobox"]')?.focus();
  };

  linked.get(parentElement)?.();
  document.addEventListener("mouseover", onField);
  document.addEventListener("focusin", onField);
  root.addEventListener("mouseover", onSymbol);
  root.addEventListener("mouseleave", away);
  root.addEventListener("click", pick);
  const release = () => {
    document.removeEventListener("mouseover", onField);
    document.removeEventListener("focusin", onField);
    root.removeEventListener("mouseover", onSymbol);
    root.removeEventListener("mouseleave", away);
    root.removeEventListener("click", pick);
  };
  linked.set(parentElement, release);
  return () => {
    if (linked.get(parentElement) !== release) return; // overtaken by a newer call
    release();
    linked.delete(parentElement);
    away();
    root.remove();
  };
}
