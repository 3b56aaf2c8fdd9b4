"""Edits of minibert/training/spans.py, each of which a test has to notice."""

EDITS = (
    ('if scheme != "IOB1" or touches:', 'if scheme != "IOB1":'),
    ("before.label == label and before.stop == start", "before.stop == start"),
    ('"S" if stop - start == 1 else "E"', '"E"'),
    ("before.stop <= start < stop", "before.stop <= start <= stop"),
    ("if strange and not letters:", "if strange:"),
    ('return "BIO" if "B" in letters else "IOB1"', 'return "BIO"'),
    ("for span in set(a) & set(b)", "for span in set(a)"),
    ("for label in sorted(guessed | wanted)", "for label in sorted(wanted)"),
    ("2 * self.n_right / both", "self.n_right / both"),
)
