"""Tables for a terminal."""

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], *, left: Collection[int] | None = None) -> list[str]:
    """A line for each row, its cells in columns; blanks at the end of a line are left out.

    Args:
        rows: of one length, the header among them.
        left: the columns that begin at the left; the others end at the right.  None: all do.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if left is None or at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
