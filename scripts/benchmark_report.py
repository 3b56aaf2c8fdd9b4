"""What `benchmark.py` says of its figures: ratios, tables, the picture, and the page.

A ratio of two contenders is taken within each round, for the speed of a machine drifts from one to
the next; what is told is the median of the rounds' ratios, with their range.  It is told only where
it means something: of at least `FEWEST_ROUNDS` rounds, and where the middle half of the ratios
spans no more than `MOST_SPREAD` of their median.  Else the range stands there alone, and why.
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pages import between_marks

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "docs" / "performance.json"
PICTURE = ROOT / "docs" / "performance.png"

FEWEST_ROUNDS = 3
MOST_SPREAD = 0.2

DEFAULT_PEER = "sentence-transformers"  # as it comes
CLASSES = {32: "32 bits", 16: "16 bits", 8: "8 bits"}

Figures = dict[str, Any]


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def told(values: Sequence[float], form: str = ".2f") -> str:
    """The median of some ratios and their range, or why there is none."""
    across = f"{min(values):{form}} to {max(values):{form}}"
    if len(values) < FEWEST_ROUNDS:
        return f"too few rounds ({across})"
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    if third - first > MOST_SPREAD * abs(middle):
        return f"spread too large ({across})"
    return f"{middle:{form}} ({across})"


def report(results: Figures) -> str:
    """The section of one workload, in Markdown."""
    tables = {"W4": _single_tables, "W5": _cold_tables, "W7": _growth_tables}
    body = tables.get(results["workload"], _bulk_tables)(results)
    about = results["about"]
    machine = f"{about['machine']}, {about['threads']} threads; rounds: {about['rounds']}"
    packages = _versions(results["contenders"])
    return "\n\n".join(
        [f"### {results['workload']}: {about['title']}", f"On {machine}.", *body, packages]
    )


def _bulk_tables(results: Figures) -> list[str]:
    found, about = results["contenders"], results["about"]
    judged = any("spearman" in each for each in found)
    header = ["", "bits", "texts/s", "of the limit", "largest error", "peak memory", "settings"]
    if judged:
        header.insert(5, "STS-B")
    rows = []
    for each in sorted(found, key=lambda each: (-each["bits"], -_speed(each, about))):
        shares = [
            about["flops"] / seconds / limit
            for seconds, limit in zip(
                each["seconds"], results["limits"][str(each["bits"])], strict=True
            )
        ]
        row = [
            _name(each),
            str(each["bits"]),
            f"{_speed(each, about):,.0f}",
            told(shares, ".0%"),
            f"{each['error']:.1e}",
            f"{each['peak_bytes'] / 1e6:,.0f} MB",
            _settings(each),
        ]
        if judged:
            row.insert(5, f"{100 * each['spearman']:.2f}" if "spearman" in each else "")
        rows.append(row)
    work = (
        f"{about['n_texts']:,} texts, of them {about['n_distinct']:,} distinct, of "
        f"{about['n_tokens']:,} tokens: {about['flops'] / 1e12:.3g} TFLOP of matrix products."
    )
    return [work, _table(header, rows), _limits(results), _ratio_table(results, "seconds")]


def _limits(results: Figures) -> str:
    """What matrix products alone reached, by the bits of their numbers."""
    medians = {bits: statistics.median(rates) for bits, rates in results["limits"].items()}
    rates = ", ".join(f"{rate / 1e9:,.0f} in {bits} bits" for bits, rate in medians.items())
    return f"The limit, measured in each round: GFLOP/s of matrix products alone, {rates}."


def _ratio_table(results: Figures, *measures: str) -> str:
    """Each of ours beside the peers that it is to be compared with."""
    found = results["contenders"]
    rows = []
    for ours in (each for each in found if each["ours"]):
        for peer, why in rivals(ours, found, measures[0]):
            row = [ours["name"], f"{peer['name']}, {why}"]
            rows.append(row + [told(ratios(peer[each], ours[each])) for each in measures])
    if not rows:
        return "No peer was measured beside it."
    headers = {"seconds": "faster by", "p50": "p50 lower by", "p99": "p99 lower by"}
    return _table(["", "beside", *(headers[each] for each in measures)], rows)


def rivals(
    ours: Figures, found: Iterable[Figures], measure: str = "seconds"
) -> list[tuple[Figures, str]]:
    """The peers that one of ours is compared with, each once, and why it is chosen.

    The best is the one whose median over the rounds is the lowest: one and the same in all rounds.
    """
    peers = sorted(
        (each for each in found if not each["ours"]),
        key=lambda each: statistics.median(each[measure]),
    )
    chosen: list[tuple[Figures, str]] = []

    def choose(why: str, allowed: Iterable[Figures]) -> None:
        for peer in allowed:
            if all(peer is not other for other, _ in chosen):
                chosen.append((peer, why))
            return

    bits = ours["bits"]
    for each in (each for each in (bits, 16) if each >= bits):
        choose(f"the best in {each} bits", [peer for peer in peers if peer["bits"] == each])
    # A peer that is more exact, and faster than those, can be taken in their place.
    choose(f"the best in {bits} bits or more", [peer for peer in peers if peer["bits"] >= bits])
    choose("as it comes", [peer for peer in peers if peer["name"] == DEFAULT_PEER])
    return chosen


def _single_tables(results: Figures) -> list[str]:
    rows = [
        [
            _name(each),
            str(each["bits"]),
            f"{statistics.median(each['p50']) * 1e3:.2f} ms",
            f"{statistics.median(each['p99']) * 1e3:.2f} ms",
            f"{each['error']:.1e}",
            f"{each['peak_bytes'] / 1e6:,.0f} MB",
            _settings(each),
        ]
        for each in sorted(results["contenders"], key=lambda each: statistics.median(each["p50"]))
    ]
    header = ["", "bits", "p50", "p99", "largest error", "peak memory", "settings"]
    return [_table(header, rows), _ratio_table(results, "p50", "p99")]


def _cold_tables(results: Figures) -> list[str]:
    first, *others = results["contenders"]
    rows = []
    for each in (first, *others):
        added = statistics.median(
            peak - base for peak, base in zip(each["peak_bytes"], first["peak_bytes"], strict=True)
        )
        rows.append(
            [
                each["name"],
                f"{statistics.median(each['seconds']):.2f} s",
                "" if each is first else told(ratios(each["seconds"], first["seconds"])),
                f"{statistics.median(each['peak_bytes']) / 1e6:,.0f} MB",
                "" if each is first else f"{added / 1e6:+,.0f} MB",
            ]
        )
    header = ["", "wall", f"of `{first['name']}`", "peak memory", "above it"]
    return [_table(header, rows), f"The weights are {results['about']['weights'] / 1e6:,.0f} MB."]


def _growth_tables(results: Figures) -> list[str]:
    rows = []
    for each in results["contenders"]:
        sizes = each["sizes"]
        for size in sizes:
            rows.append(
                [
                    each["name"],
                    f"{size['n_texts']:,}",
                    f"{size['n_texts'] / statistics.median(size['seconds']):,.0f}",
                    f"{statistics.median(size['peak_bytes']) / 1e6:,.0f} MB",
                    ""
                    if size is sizes[0]
                    else told(ratios(size["peak_bytes"], sizes[0]["peak_bytes"])),
                ]
            )
    return [_table(["", "texts", "texts/s", "peak memory", "of the smallest's"], rows)]


def _speed(each: Figures, about: Figures) -> float:
    """Texts a second."""
    return about["n_texts"] / statistics.median(each["seconds"])


def _name(each: Figures) -> str:
    return f"**{each['name']}**" if each["ours"] else each["name"]


def _settings(each: Figures) -> str:
    return ", ".join(f"{key} {value}" for key, value in each["settings"].items())


def _versions(found: Iterable[Figures]) -> str:
    """The packages of each library, whose versions may differ between environments."""
    libraries = {each["library"]: each["versions"] for each in found if each.get("versions")}
    return "; ".join(
        f"{library}: " + ", ".join(f"{name} {version}" for name, version in packages.items())
        for library, packages in libraries.items()
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def write(found: Sequence[Figures], folder: Path = ROOT / "docs") -> None:
    """Keep the figures, and write page and picture of all that are kept.

    Workloads that were not measured now stay as they were, with their own machine and versions.
    """
    results, page = folder / RESULTS.name, folder / PAGE.name
    kept = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    kept.update({each["workload"]: each for each in found})
    kept = dict(sorted(kept.items()))
    results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    text = "\n\n".join(report(each) for each in kept.values())
    if draw(list(kept.values()), folder / PICTURE.name):
        text = f"![Texts a second by contender]({PICTURE.name})\n\n{text}"
    page.write_text(
        between_marks(page.read_text(encoding="utf-8"), "benchmark", text), encoding="utf-8"
    )


def draw(found: Sequence[Figures], path: Path) -> bool:
    """A picture of texts a second: a panel a workload, ours dark, by the bits of their numbers.

    Returns: False where nothing that was measured has such figures.
    """
    bulk = [each for each in found if "flops" in each["about"]]
    if not bulk:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    most = max(len(each["contenders"]) for each in bulk)
    figure, panels = pyplot.subplots(
        1, len(bulk), figsize=(5.2 * len(bulk), 1.4 + 0.32 * (most + 3)), squeeze=False
    )
    for panel, results in zip(panels[0], bulk, strict=True):
        _draw_panel(panel, results)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True


def _draw_panel(panel: Any, results: Figures) -> None:
    """Bars from top to bottom: 32 bits, 16, 8, and in each the fastest first."""
    about = results["about"]
    at, places, names = 0.0, [], []
    longest = max(_speed(each, about) for each in results["contenders"])
    for bits, said in CLASSES.items():
        members = [each for each in results["contenders"] if each["bits"] == bits]
        if not members:
            continue
        panel.text(longest * 0.01, at, said, fontweight="bold", va="center", fontsize=9)
        at += 1
        for each in sorted(members, key=lambda each: -_speed(each, about)):
            speed = _speed(each, about)
            panel.barh(at, speed, height=0.72, color="#1f5fa8" if each["ours"] else "#b9c4d0")
            panel.text(speed + longest * 0.015, at, f"{speed:,.0f}", va="center", fontsize=8)
            places.append(at)
            names.append(each["name"])
            at += 1
        at += 0.4
    panel.set_yticks(places, names, fontsize=8)
    panel.set_ylim(at - 0.4, -0.8)
    panel.set_xlim(0, longest * 1.15)
    panel.set_title(f"{results['workload']}: {about['title']}", fontsize=9, loc="left")
    panel.set_xlabel("texts/s", fontsize=9)
    panel.tick_params(axis="x", labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
