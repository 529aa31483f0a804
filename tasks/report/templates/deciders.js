"use strict";

// Runs once site.js is there.
document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("deciders");
  if (!root) return;
  const { block, networks } = JSON.parse(document.getElementById("deciders-data").textContent);
  const [list, panel] = ["classes", "chosen"].map((name) => document.getElementById("deciders-" + name));
  const [choice, blocks, search] = ["network", "block", "search"].map((name) => document.getElementById("deciders-" + name));
  let network = networks[0], selected = null, only = null;

  function element(tag, text, name) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  function drawing(tag, attributes) {
    const made = document.createElementNS(document.querySelector("svg").namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  const classOf = (index) => network.classes[index][0];
  const count = (n, noun) => n.toLocaleString("en") + " " + (n === 1 ? noun : noun + (noun.endsWith("s") ? "es" : "s"));
  const said = ([, , , id, name, value]) => "image " + id + ", class " + name + ", value " + value;

  function pictureOf(image) {
    const [digest, width, height, , , , box] = image;
    if (!digest) return element("span", "image " + image[3], "id");
    const alt = said(image) + (box.length ? "; outlined: where the feature is active" : "");
    const svg = drawing("svg", { class: "thumb", role: "img", "aria-label": alt, viewBox: "0 0 " + width + " " + height });
    svg.append(drawing("use", { href: "#t-" + digest, width, height }));
    if (box.length) {
      const [x, y, w, h] = box;
      const edge = Math.max(width, height) / 45; // half a line, so that the image's border does not cut it
      svg.append(drawing("rect", { class: "box", x: x + edge / 2, y: y + edge / 2, width: w - edge, height: h - edge }));
    }
    return svg;
  }

  // The names of the other classes, as many as a card has room for.
  function othersOf(users, own) {
    const others = users.map(([index]) => index).filter((index) => index !== own);
    if (!others.length) return "only this class";
    const some = others.slice(0, 3).map(classOf).join(", ");
    return "also: " + some + (others.length > 3 ? " and " + (others.length - 3) + " more" : "");
  }

  function cardOf([index, percent, share, weight, against], own) {
    const [number, users, images] = network.features[index];
    const item = element("li"), button = element("button", undefined, "feature");
    button.type = "button";
    button.dataset.feature = index;
    button.append(element("b", "feature " + number), element("span", (against ? "against " : "for ") + weight, against ? "weight wrong" : "weight"));
    const strip = element("span", undefined, "images");
    strip.append(...images.map(pictureOf));
    const bar = element("span", network.counted + " in " + percent + " of images", "bar");
    bar.style.setProperty("--share", share);
    item.append(button, strip, bar, element("span", othersOf(users, own), users.length > 1 ? "others" : "others alone"));
    button.addEventListener("click", () => select(selected === index ? null : index));
    return item;
  }

  function rowOf(index) {
    const [name, cards] = network.classes[index];
    const row = element("li"), made = element("ol", undefined, "features");
    row.dataset.class = index;
    made.append(...cards.map((card) => cardOf(card, index)));
    row.append(element("h3", name), made);
    return row;
  }

  function shownClasses() {
    const all = network.classes.map((_, index) => index), asked = search.value.trim().toLowerCase();
    if (only !== null) return network.features[only][1].map(([index]) => index);
    if (!asked) return all.slice(Number(blocks.value) * block).slice(0, block);
    return all.filter((index) => network.classes[index][0].toLowerCase().includes(asked) ||
      network.classes[index][1].some(([feature]) => asked.replace(/^feature\s+/, "") === String(network.features[feature][0])));
  }

  function fill() {
    const found = shownClasses(), shown = found.slice(0, 3 * block), total = network.classes.length;
    list.replaceChildren(...shown.map(rowOf));
    const first = found.length > shown.length ? ", the first " + shown.length + " shown" : "";
    document.getElementById("deciders-count").textContent = found.length < total ? found.length + " of " + count(total, "class") + first : "";
    mark();
  }

  // Highlights the cards of the selected feature, and the classes that use it.
  function mark() {
    for (const button of list.querySelectorAll("button.feature")) {
      const same = Number(button.dataset.feature) === selected;
      button.setAttribute("aria-pressed", same);
      button.closest("li").classList.toggle("same", same);
    }
    const users = selected === null ? [] : network.features[selected][1].map(([index]) => index);
    for (const row of list.children) {
      const uses = users.includes(Number(row.dataset.class));
      row.classList.toggle("uses", uses);
      row.classList.toggle("dimmed", selected !== null && !uses);
    }
  }

  function action(text, act) {
    const button = element("button", text, "small");
    button.type = "button";
    button.addEventListener("click", act);
    return button;
  }

  function filter(feature) {
    only = feature;
    search.value = "";
    fill();
    describe();
  }

  function describe() {
    panel.hidden = selected === null;
    if (selected === null) return panel.replaceChildren();
    const [number, users, images] = network.features[selected];
    const text = element("p"), strip = element("ol", undefined, "strip"), total = count(network.classes.length, "class");
    text.append(element("b", "Feature " + number), " is used by " + users.length + " of " + total + ": " +
      users.map(([index, rank]) => classOf(index) + " (rank " + rank + ")").join(", ") + ". ");
    text.append(only === null ? action("Show only these classes", () => filter(selected)) : action("Show all classes", () => filter(null)), " ",
      action("Close", () => select(null)));
    strip.append(...images.map((image) => {
      const item = element("li");
      const lines = element("div");
      lines.append(element("span", image[4], "class"), element("span", "value " + image[5], "amount"), element("span", "image " + image[3], "id"));
      item.append(...(image[0] ? [pictureOf(image)] : []), lines);
      return item;
    }));
    panel.replaceChildren(text, ...(images.length ? [strip] : []));
  }

  function select(feature) {
    selected = feature;
    const filtered = only !== null;
    only = null;
    if (filtered) fill();
    else mark();
    describe();
  }

  function open(index) {
    network = networks[index];
    [selected, only, search.value] = [null, null, ""];
    document.getElementById("deciders-answer").textContent = network.answer;
    const starts = [...Array(Math.ceil(network.classes.length / block)).keys()];
    blocks.replaceChildren(...starts.map((start) => {
      const last = Math.min((start + 1) * block, network.classes.length) - 1;
      return new Option((start * block + 1) + "–" + (last + 1) + ": " + classOf(start * block) + " to " + classOf(last), start);
    }));
    blocks.parentElement.hidden = search.parentElement.hidden = starts.length < 2;
    const pictured = network.features.some(([, , images]) => images.some((image) => image[0]));
    const boxed = network.features.some(([, , images]) => images.some((image) => image[6].length));
    document.getElementById("deciders-legend").textContent =
      (pictured ? ", shown by the images of split " + network.shown + " that activate it most" : "") + "." +
      (boxed ? " Outlined: where in the image it is active." : "") +
      " Percent: images " + network.of + ", in which the feature is " + network.among +
      ". For or against: the sign of its weight in the class's logit. Select a feature to see all classes that use it.";
    describe();
    fill();
  }

  choice.addEventListener("input", () => open(Number(choice.value)));
  blocks.addEventListener("input", () => { only = null; search.value = ""; fill(); });
  search.addEventListener("input", () => { only = null; fill(); });
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && selected !== null) select(null);
  });
  root.hidden = false;
  const asked = networks.findIndex((each) => each.name === linked.get("network"));
  choice.value = String(Math.max(0, asked));
  open(Number(choice.value));
  const feature = network.features.findIndex(([number]) => String(number) === linked.get("feature"));
  if (feature < 0) return;
  select(feature);
  panel.scrollIntoView();
});
