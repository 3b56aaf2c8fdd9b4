"""Edits of minibert/layout.py, each of which a test has to notice."""

EDITS = (
    ("return None if self.mask is None else self.mask[:, None, None, :]", "return None"),
    ("return hidden[:, 0]", "return hidden[:, -1]"),
    ("return values[self.cu_seqlens[:-1]]", "return values[self.cu_seqlens[1:] - 1]"),
    ("or min(self.lengths) < 1", "or min(self.lengths) < 0"),
    ("if sum(self.lengths) != len(self.positions):", "if False:"),
    ("if not bool(mask[:, 0].all()):", "if False:"),
    ("starts = [0, *accumulate(self.lengths)]", "starts = [0, *self.lengths]"),
    ("start += count * length", "start += length"),
    ("int(self.positions.max()) + 1", "int(self.positions.max())"),
    ("padded[layout.sequence, layout.positions] = values", "padded[layout.sequence, 0] = 0"),
    ("[1] * len(self.lengths)", "[1, *self.lengths][:-1]"),
    ("if layout.longest > n_positions:", "if layout.longest >= n_positions:"),
)
