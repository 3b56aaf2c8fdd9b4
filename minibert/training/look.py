"""How the pictures of training look: colours, markers, and numbers as people write them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colours, which are told apart with any kind of colour blindness; each figure has a
# marker of its own besides.
BLUE, ORANGE, GREEN, PURPLE, INK, FAINT = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#333333", "#999999",
)  # fmt: skip
STYLES = ((ORANGE, "o"), (BLUE, "s"), (GREEN, "^"), (PURPLE, "D"))
LOOK: dict[Any, Any] = {
    "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT,
    "axes.labelcolor": INK, "axes.titlecolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.grid": True, "grid.color": "#E6E6E6", "grid.linewidth": 0.8,
    "axes.axisbelow": True, "axes.formatter.useoffset": False, "lines.markersize": 5,
    "legend.framealpha": 0.85, "legend.edgecolor": "none", "legend.fontsize": 9,
}  # fmt: skip


def use_logarithms(axes: "Axes") -> None:
    """A logarithmic scale with plain numbers, as many as there is room for."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def short(rate: float) -> str:
    """A rate as people write it: 3e-5, 1.5e-4."""
    return f"{rate:.1e}".replace(".0e", "e").replace("e-0", "e-") if rate else "0"


def spelt(name: str) -> str:
    """The name of a figure as people write it."""
    words = name.replace("_", " ")
    for acronym in ("f1", "roc auc", "pr auc", "mcc", "mrr", "rmse", "mae"):
        words = words.replace(acronym, acronym.upper())
    return words
