"""Edits of minibert/precision.py, each of which a test has to notice."""

EDITS = (
    ("np.packbits(vectors > 0, axis=1)", "np.packbits(vectors >= 0, axis=1)"),
    ("np.packbits(vectors > 0, axis=1)", 'np.packbits(vectors > 0, axis=1, bitorder="little")'),
    ("max(axis=1, keepdims=True, initial=0)", "max(keepdims=True, initial=0)"),
    ("vectors / np.where(largest == 0, 1, largest)", "vectors / largest"),
    ("steps *= 127", "steps *= 126"),
    ("np.rint(steps, out=steps)", "steps"),
    ("np.isfinite(vectors)", "~np.isnan(vectors)"),
    ("-(-dim // 8)", "dim // 8"),
    ("axis=1, count=dim)", "axis=1)"),
    ("signs -= 1", "signs -= 0"),
    ("found = min(most)", "found = max(most)"),
    (" if dim is None else dim\n", "\n"),
)
