"""Edits of minibert/training/spans.py, each of which a test has to notice."""

EDITS = (
    ('prefix in "IE" and before[0] in "BI"', 'prefix in "IE" and before[0] != "O"'),
    (" and before[1] == label:", ":"),
    ("found[-1]._replace(stop=place + 1)", "found[-1]._replace(stop=place)"),
    ('if scheme != "IOB1" or touches:', 'if scheme != "IOB1":'),
    ("before.label == label and before.stop == start", "before.stop == start"),
    ('"S" if stop - start == 1 else "E"', '"E"'),
    ("before.stop <= start < stop", "before.stop <= start <= stop"),
    ("right = write_tags(spans, len(tags), scheme)", "right = write_tags(spans, len(tags))"),
    ("(as_bio and not as_iob1)", "not as_iob1"),
    ("for span in set(a) & set(b)", "for span in set(a)"),
    ("for label in sorted(guessed | wanted)", "for label in sorted(wanted)"),
    ("tag[2:] or _NO_TYPE", "tag[2:]"),
    ("2 * self.n_right / both", "self.n_right / both"),
)
