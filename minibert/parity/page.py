"""A comparison as one self-contained page: the verdict, the table, and a map of stage by token."""

import html
import json
import math
from pathlib import Path

from minibert.errors import ParityError
from minibert.files import replacing
from minibert.parity.result import FACTOR, Comparison, StageResult


def write_page(comparison: Comparison, path: str | Path) -> None:
    """Write the page; it needs no network and opens from the disk.

    Raises: ParityError where it cannot be written.
    """
    path = Path(path)
    try:
        with replacing(path) as part:
            part.write_text(page(comparison), encoding="utf-8")
    except OSError as error:
        raise ParityError(f"{path}: cannot be written: {error}; choose another place") from None


def page(comparison: Comparison) -> str:
    """The page as text."""
    first, cause = comparison.first, comparison.cause
    if first is None:
        verdict, tone = "Equal at every stage", "good"
    else:
        verdict, tone = f"First difference: {first.stage}", "bad"
    facts = [
        ("Candidate", comparison.candidate),
        ("Reference", comparison.reference),
        ("Compared", f"{len(comparison.results)} stages, judged in {comparison.dtype}"),
    ]
    if cause is not None:
        left = f"{cause.residual:.1e} is left" if cause.explains else "not certain"
        facts += [("Likely cause", f"{cause.name} ({left})"), ("Remedy", cause.advice)]
    if comparison.dump_next:
        facts.append(("Dump next", ", ".join(comparison.dump_next)))
    facts += [("Note", note) for note in comparison.notes]
    rows = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts)
    return _PAGE.format(
        title=html.escape(verdict),
        tone=tone,
        facts=rows,
        factor=f"{FACTOR:g}",
        table="".join(_row(result) for result in comparison.results),
        data=json.dumps(_map(comparison), ensure_ascii=False).replace("</", "<\\/"),
    )


def _row(result: StageResult) -> str:
    times = result.max_abs / result.noise if result.noise else math.inf
    cells = [
        result.stage,
        f"{result.max_abs:.1e}",
        f"{result.mean_abs:.1e}",
        f"{result.relative:.1e}",
        f"{result.ulp:.3g}",
        f"{result.cosine:.6f}",
        f"{times:.3g}",
        "" if result.local is None else f"{result.local:.1e}",
        "" if result.padding is None else f"{result.padding:.1e}",
        result.verdict,
        "" if result.cause is None else result.cause.name,
    ]
    inner = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    return f'<tr class="{result.verdict}">{inner}</tr>'


def _map(comparison: Comparison) -> dict[str, object]:
    """The error of each token at each stage, as the power of ten of its multiple of the noise."""
    cells = {}
    for result in comparison.results:
        multiples = comparison.errors[result.stage] / (result.noise or 1.0)
        powers = multiples.clamp(min=1e-9, max=1e9).log10()
        cells[result.stage] = [[round(value, 1) for value in row] for row in powers.tolist()]
    faults = [result.stage for result in comparison.faults]
    first = next(iter(comparison.errors.values()))
    tokens = comparison.tokens or [[str(i) for i in range(first.shape[1])]] * len(first)
    return {
        "stages": cells,
        "tokens": tokens,
        "attended": comparison.attended.tolist(),
        "faults": faults,
    }


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8883; --good: #1a7f4b; --bad: #b3261e; }}
@media (prefers-color-scheme: dark) {{ :root {{ --good: #5cc98f; --bad: #ff8a80; }} }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 76rem;
        padding: 0 1rem; }}
select, label {{ max-width: 100%; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
h1.good {{ color: var(--good); }} h1.bad {{ color: var(--bad); }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }}
dt {{ opacity: .7; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }}
th, td {{ padding: .15rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
          white-space: nowrap; }}
th:first-child, td:first-child, td:last-child {{ text-align: left; }}
tr.differs td {{ color: var(--bad); font-weight: 600; }} tr.inherits td {{ opacity: .75; }}
#map td, #map th {{ padding: 0; border: 0; font-size: 11px; }}
#map td {{ min-width: 14px; height: 14px; }}
#map td:first-child {{ padding-right: .6rem; position: sticky; left: 0; background: Canvas; }}
#map th {{ font-weight: 400; }}
#map th span {{ writing-mode: vertical-rl; transform: rotate(180deg); max-height: 9rem;
                padding-left: .2rem; }}
.key {{ display: flex; gap: .8rem; flex-wrap: wrap; font-size: 13px; align-items: center; }}
.key i {{ display: inline-block; width: 14px; height: 14px; margin-right: .3rem;
          vertical-align: -2px; border: 1px solid var(--line); }}
</style>
<h1 class="{tone}">{title}</h1>
<dl>{facts}</dl>
<h2>Stage by token</h2>
<p class="key"><label>Text <select id="text"></select></label><span id="key"></span></p>
<div class="scroll"><table id="map"></table></div>
<h2>Stages</h2>
<p>A stage differs when its largest error, over the attended tokens, is more than {factor} times the
noise of its dtype. “By itself” is the error when the stage is computed again from the candidate’s
own input; a stage that only inherits its error has none.</p>
<div class="scroll"><table>
<tr><th>stage<th>max<th>mean<th>relative<th>ulp<th>cosine<th>× noise<th>by itself<th>padding
<th>verdict<th>cause</tr>
{table}
</table></div>
<script>
const data = {data};
const shades = [
  [0.5, "#8882", "up to 3 × the noise"], [1, "#f4e3a1", "up to 10"], [2, "#f2b35d", "up to 100"],
  [3.5, "#e0703a", "up to 3,000"], [5, "#b3361f", "up to 100,000"], [99, "#5d0f14", "more"],
];
const shade = power => shades.find(([limit]) => power <= limit)[1];
document.getElementById("key").innerHTML =
  shades.map(([, colour, label]) => `<span><i style="background:${{colour}}"></i>${{label}}</span>`)
    .join(" &nbsp; ");
const select = document.getElementById("text");
data.tokens.forEach((row, index) => {{
  const shown = row.filter((_, i) => data.attended[index][i]).join(" ");
  select.add(new Option(`${{index + 1}}: ${{shown.slice(0, 60)}}`, index));
}});
function draw(index) {{
  const columns = data.tokens[index].map((_, i) => i).filter(i => data.attended[index][i]);
  const table = document.getElementById("map");
  table.replaceChildren();
  const head = table.insertRow();
  head.insertCell();
  for (const i of columns) {{
    const cell = head.appendChild(document.createElement("th"));
    cell.appendChild(document.createElement("span")).textContent = data.tokens[index][i];
  }}
  for (const [stage, rows] of Object.entries(data.stages)) {{
    const row = table.insertRow();
    const label = row.insertCell();
    label.textContent = stage;
    if (data.faults.includes(stage)) label.style.cssText = "color: var(--bad); font-weight: 700";
    for (const i of columns) {{
      const cell = row.insertCell();
      cell.style.background = shade(rows[index][i]);
      cell.title =
        `${{stage}} at ${{data.tokens[index][i]}}: 10^${{rows[index][i]}} times the noise`;
    }}
  }}
}}
const worst = data.tokens.map((_, index) =>
  Math.max(...Object.values(data.stages).map(rows => Math.max(...rows[index]))));
select.value = worst.indexOf(Math.max(...worst));
select.onchange = () => draw(Number(select.value));
draw(Number(select.value));
</script>
</html>
"""
