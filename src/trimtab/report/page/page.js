// What the page can do with a script: read values under the pointer or by arrow keys, open all decisions, find a signal.
// Text from a run is only ever set as text.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, attributes) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  // A height is known to a millionth of the axis: what is finer is rounding and is not shown.
  const shown = (read, finest) => {
    const value = finest ? Number(read.toFixed(Math.max(0, Math.min(100, Math.floor(-Math.log10(finest)))))) : read;
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size < 1e-4 || size >= 1e5 ? value.toExponential(4).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(5)));
    return text.replace("e+", "e");
  };
  const grouped = (step) => String(Math.round(step)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");

  // A chart knows its curves as lists of steps, heights in parts of the plot, and values.
  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.plot = figure.querySelector(".plot");
      this.at = figure.querySelector(".at");
      this.values = [...figure.querySelectorAll(".value b")];
      this.newest = this.values.map((value) => value.textContent);
      [this.low, this.high] = this.plot.dataset.x.split(" ").map(Number);
      this.lines = null;
    }
    read() {
      if (this.lines) return;
      const [low, high] = this.plot.dataset.y.split(" ").map(Number);
      const isLog = "log" in this.plot.dataset;
      const inner = this.plot.querySelector(".curves");
      const [, , width, height] = inner.getAttribute("viewBox").split(" ").map(Number);
      this.lines = [...inner.querySelectorAll("path")].map((path) => {
        const numbers = (path.getAttribute("d").match(/-?\d+/g) || []).map(Number);
        const steps = [], downs = [], values = [];
        let x = 0, y = 0;
        for (let place = 0; place + 1 < numbers.length; place += 2) {
          x += numbers[place];
          y += numbers[place + 1];
          const part = 1 - y / height;
          steps.push(this.low + (x / width) * (this.high - this.low));
          downs.push(y / height);
          values.push(isLog ? Math.exp(Math.log(low) + part * (Math.log(high) - Math.log(low))) : low + part * (high - low));
        }
        const isHeld = "held" in path.dataset;
        const finest = isLog ? 0 : (high - low) / height;
        return { steps, downs, values, isHeld, finest, colour: path.getAttribute("class").replace(/curve|d\d/g, "") };
      });
    }
    isShown() {
      return this.plot.getClientRects().length > 0;
    }
    show(step) {
      this.read();
      const height = this.plot.getAttribute("height");
      if (!this.cursor) this.cursor = this.plot.appendChild(make("line", { class: "cursor", y1: 0, y2: height }));
      const percent = (value) => `${(100 * (value - this.low)) / (this.high - this.low)}%`;
      this.cursor.setAttribute("x1", percent(step));
      this.cursor.setAttribute("x2", percent(step));
      this.spots = this.spots || this.lines.map((line) =>
        this.plot.appendChild(make("circle", { class: "spot" + line.colour, r: 3.5 })));
      this.lines.forEach((line, place) => {
        const near = line.isHeld ? before(line.steps, step) : nearest(line.steps, step);
        const spot = this.spots[place];
        spot.setAttribute("visibility", near < 0 ? "hidden" : "visible");
        if (near < 0) return;
        spot.setAttribute("cx", percent(line.isHeld ? step : line.steps[near]));
        spot.setAttribute("cy", line.downs[near] * height);
        if (this.values[place]) this.values[place].textContent = shown(line.values[near], line.finest);
      });
    }
    // The step of the point that is nearest; a curve that holds its values has one everywhere.
    snap(step) {
      this.read();
      const near = this.lines.filter((line) => !line.isHeld && line.steps.length)
        .map((line) => line.steps[nearest(line.steps, step)]);
      return near.reduce((one, two) => (Math.abs(two - step) < Math.abs(one - step) ? two : one), near.length ? near[0] : step);
    }
    // What is seen beside the title as the step is read out with its values.
    say(step) {
      const said = document.createElement("span");
      said.className = "said";
      said.textContent = `: ${this.values.map((value) => value.textContent).join(", ")}`;
      this.at.replaceChildren(`step ${grouped(step)}`, said);
    }
    hide() {
      if (this.cursor) this.cursor.remove();
      if (this.spots) this.spots.forEach((spot) => spot.remove());
      this.cursor = this.spots = null;
      this.values.forEach((value, place) => { value.textContent = this.newest[place]; });
      this.at.textContent = "";
    }
  }

  const nearest = (steps, step) => {
    let low = 0, high = steps.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle + 1; else high = middle;
    }
    return low > 0 && step - steps[low - 1] <= steps[low] - step ? low - 1 : steps.length ? low : -1;
  };

  const before = (steps, step) => {
    let low = 0, high = steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle + 1; else high = middle;
    }
    return low - 1;
  };

  // Charts of one run share their steps: what is pointed at in one is read in all.
  for (const section of document.querySelectorAll("section.run, section.compare")) {
    const charts = [...section.querySelectorAll("figure.chart")].map((figure) => new Chart(figure));
    let wanted = null, isAsked = false;
    const paint = () => {
      isAsked = false;
      for (const chart of charts) {
        if (!wanted) chart.hide(); else if (chart.isShown()) chart.show(wanted.step);
      }
      if (wanted) wanted.chart.say(wanted.step);
    };
    const point = (chart, step) => {
      if (wanted && wanted.chart !== chart) wanted.chart.at.textContent = "";
      wanted = chart && { chart, step: Math.min(chart.high, Math.max(chart.low, step)) };
      if (!isAsked) { isAsked = true; requestAnimationFrame(paint); }
    };
    for (const chart of charts) {
      chart.figure.addEventListener("pointermove", (event) => {
        const box = chart.plot.querySelector(".curves").getBoundingClientRect();
        if (event.clientY < box.top - 80) return;
        const part = (event.clientX - box.left) / box.width;
        point(chart, chart.snap(Math.round(chart.low + part * (chart.high - chart.low))));
      });
      chart.figure.addEventListener("pointerleave", () => point(null));
      chart.figure.addEventListener("blur", () => point(null));
      chart.figure.addEventListener("keydown", (event) => {
        if (event.target !== chart.figure) return;
        chart.read();
        const steps = [...new Set(chart.lines.flatMap((line) => line.steps))].sort((one, two) => one - two);
        if (!steps.length) return;
        const now = wanted && wanted.chart === chart ? nearest(steps, wanted.step) : steps.length;
        const places = { ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now - 20, PageDown: now + 20, Home: 0, End: steps.length - 1 };
        if (event.key === "Escape") point(null);
        if (!(event.key in places)) return;
        event.preventDefault();
        point(chart, steps[Math.min(steps.length - 1, Math.max(0, places[event.key]))]);
      });
    }
  }

  const button = (words, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.addEventListener("click", act);
    return made;
  };
  for (const list of document.querySelectorAll(".decisions")) {
    const set = (isOpen) => () => list.querySelectorAll("details").forEach((one) => { one.open = isOpen; });
    const tools = document.createElement("div");
    tools.className = "tools";
    tools.append(button("Open all", set(true)), button("Close all", set(false)));
    list.before(tools);
  }
  for (const more of document.querySelectorAll(".more.signals")) {
    const figures = [...more.querySelectorAll("figure")];
    if (figures.length < 9) continue;
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "find a signal";
    field.setAttribute("aria-label", "find a signal");
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase();
      for (const one of figures) one.hidden = !one.querySelector("h4").textContent.toLowerCase().includes(wanted);
    });
    more.querySelector("summary").after(field);
  }
  const closed = [];
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details:not([open])")) { one.open = true; closed.push(one); }
  });
  addEventListener("afterprint", () => { for (const one of closed.splice(0)) one.open = false; });
})();
