// Videos are in the page, and are decoded when they come into view.
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    entry.target.src = entry.target.dataset.src;
    entry.target.removeAttribute("data-src");
    seen.unobserve(entry.target);
  }
}, { rootMargin: "400px" });
for (const video of document.querySelectorAll("video[data-src]")) seen.observe(video);

// The values under the pointer: every chart carries its points in `data-points`.
for (const chart of document.querySelectorAll("figure.chart")) {
  const svg = chart.querySelector("svg");
  const points = JSON.parse(chart.dataset.points);
  if (points.length === 0) continue;
  const cursor = svg.querySelector(".cursor");
  const tip = chart.querySelector(".tip");
  const hide = () => { cursor.setAttribute("visibility", "hidden"); tip.hidden = true; };
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const at = (event.clientX - box.left) * scale;
    const point = points.reduce((best, one) => (Math.abs(one.x - at) < Math.abs(best.x - at) ? one : best));
    cursor.setAttribute("x1", point.x);
    cursor.setAttribute("x2", point.x);
    cursor.setAttribute("visibility", "visible");
    const rows = point.values.map((value) => {
      const row = document.createElement("span");
      row.className = `curve-${value.colour}`;
      row.textContent = `${value.label} ${value.text}`;
      return row;
    });
    const head = document.createElement("b");
    head.textContent = `step ${point.step.toLocaleString("en-US")}`;
    tip.replaceChildren(head, ...rows);
    tip.hidden = false;
    const left = point.x / scale;  // within the chart, on the side with more room
    tip.style.left = left < box.width / 2 ? `${left + 12}px` : "auto";
    tip.style.right = left < box.width / 2 ? "auto" : `${box.width - left + 12}px`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}
