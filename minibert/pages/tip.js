// A line or several beside the pointer, for pages with an element of the id tip.
const tip = $("tip");
function showTip(lines, x, y) {
  tip.replaceChildren(...lines.flatMap((line, i) => i ? [make("br"), line] : [line]));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const furthest = document.documentElement.clientWidth - width - 4;
  tip.style.left = `${Math.max(4, Math.min(x + 14, furthest))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? y - height - 12 : y + 18}px`;
}
