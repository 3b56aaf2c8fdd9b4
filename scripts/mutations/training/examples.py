"""Edits of minibert/training/examples.py, each of which a test has to notice."""

EDITS = (
    ("        return len(self.targets)", "        return len(self.ids)"),
    ("        if self.n_parts == 1:", "        if True:"),
    ("range(0, len(self.ids), self.n_parts)", "range(0, len(self.ids), 1)"),
    ("range(self.texts[-1] + 1)", "range(len(self.texts))"),
    ("[self.types[each] for each in sequences]", "[self.types[0] for each in sequences]"),
    ("            self.n_parts,\n        )", "        )"),
    ("range(row * self.n_parts, (row + 1) * self.n_parts)", "range(row, row + self.n_parts)"),
    ("if self.parts is None else len(self.parts)", "if self.parts is None else self.parts.numel()"),
    ("order = sorted(rows, key=lambda row: len(examples.ids[row]))", "order = list(rows)"),
    ("isinstance(targets[0], list) and dtype == torch.long", "isinstance(targets[0], list)"),
    (
        "torch.tensor(flat, dtype=dtype), tuple(order))",
        "torch.tensor(flat, dtype=dtype), tuple(rows))",
    ),
    ("places[torch.tensor(order)] = torch.arange(len(order))", "places = torch.tensor(order)"),
    (
        "for each in sequences for kind in examples.types[each]",
        "for each in sorted(sequences) for kind in examples.types[each]",
    ),
    ("key=lengths.__getitem__", "key=int"),
    ("parts=None if self.parts is None else self.parts.to(device, non_blocking=True),", ""),
)
