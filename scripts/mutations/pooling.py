"""Edits of minibert/pooling.py, each of which a test has to notice."""

EDITS = (
    ("layout) / _counts(hidden, layout)\n", "layout)\n"),
    ("_counts(hidden, layout).sqrt()", "_counts(hidden, layout)"),
    ("weights = (layout.positions + 1)", "weights = (layout.positions + 2)"),
    ("hidden.masked_fill(~layout.mask[..., None], 0.0).sum(dim=1)", "hidden.sum(dim=1)"),
    ("-torch.inf).amax(dim=1)", "0.0).amax(dim=1)"),
    ("layout.cu_seqlens[1:] - 1", "layout.cu_seqlens[:-1]"),
    ("last - 1]", "last - 2]"),
    ("counts.clamp(min=1)", "counts"),
    ("NORM_EPS = 1e-12", "NORM_EPS = 1e-2"),
    ("if hidden.dtype == torch.float64 else hidden.float()", "if True else hidden"),
)
