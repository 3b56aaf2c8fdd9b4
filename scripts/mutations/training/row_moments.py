"""Edits of minibert/training/row_moments.py, each of which a test has to notice."""

EDITS = (
    ("self._place[rows] < 0", "self._place[rows] <= 0"),
    ("torch.cat([self.rows, new])", "torch.cat([new, self.rows])"),
    ("while not self._chunks or ", "while "),
    (
        "self._place[gradient.indices()[0]].sort()",
        "self._place[gradient.indices()[0]].sort(stable=True, descending=True)",
    ),
    ("values[order[of_part]]", "values[of_part]"),
    ("- int(starts[i])", ""),
    ("kind[: len(rows)] for kind in chunk", "kind.clone()[: len(rows)] for kind in chunk"),
    ("kind.copy_(values)", "pass"),
    ("kind[rows] = values", "kind[: len(values)] = values"),
)
