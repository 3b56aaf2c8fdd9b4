"""A comparison as one self-contained page: the verdict, the table, and a map of stage by token."""

import math
from pathlib import Path

from minibert import pages
from minibert.parity.result import FACTOR, Comparison, StageResult


def write_page(comparison: Comparison, path: str | Path) -> None:
    """Write the page; it needs no network and opens from the disk.

    Raises: ParityError where it cannot be written.
    """
    pages.write_page(page(comparison), path)


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
    values = {
        "title": verdict,
        "tone": tone,
        "facts": facts,
        "factor": f"{FACTOR:g}",
        "rows": [(result.verdict, _cells(result)) for result in comparison.results],
    }
    return pages.render("comparison.html", values, _map(comparison))


def _cells(result: StageResult) -> list[str]:
    """A line of the table."""
    times = result.max_abs / result.noise if result.noise else math.inf
    return [
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
