"""Edits of minibert/training/masking.py, each of which a test has to notice."""

EDITS = (
    ("(ids != self.pad_id).sum(dim=1)", "free.sum(dim=1)"),
    ("free = ~_looked_up(self.special, ids)", "free = ids != self.pad_id"),
    (".round().clamp(min=1)", ".clamp(min=1)"),
    (".round().clamp(min=1)", ".round()"),
    ("(rank < count[:, None]) & free", "(rank < count[:, None])"),
    ("labels = ids.masked_fill(~chosen, IGNORED)", "labels = ids.clone()"),
    ("hidden = chosen & (kind < self.mask_share)", "hidden = chosen"),
    ("kind < self.mask_share + self.random_share", "kind <= 1"),
    ("_looked_up(self.insertable, drawn), masked)", "drawn, masked)"),
    ("begins[:, 1:] &= ~(joined & free[:, :-1])", "begins[:, 1:] &= ~joined"),
    (" & (word_ids[:, 1:] >= 0)", ""),
    ("if 0 < size[word] <= room:", "if 0 < size[word]:"),
    ("if self.mask_share + self.random_share > 1:", "if False:"),
    (
        "(number + 1 + _below(len(documents) - 1, generator))",
        "(number + _below(len(documents), generator))",
    ),
    ("place = split if is_random else stop", "place = stop"),
    ("is_random = stop - place == 1 or _chance(0.5, generator)", "is_random = stop - place == 1"),
    ("0 if _chance(0.5, generator) else -1", "-1"),
    ("wanted = 2 + _below(room - 1, generator) if short else room", "wanted = room"),
)
