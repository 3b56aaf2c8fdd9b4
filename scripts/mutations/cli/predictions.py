"""Edits of minibert/cli/predictions.py, each of which a test has to notice."""

EDITS = (
    ("max_length=self.max_length, window_overlap=None", "max_length=self.max_length"),
    ("settings = replace(settings, long_text=self.long_text)", "pass"),
    ("        if self.input is not None and texts:", "        if False:"),
    (
        "                check_output(self.output, source=self.input, overwrite=self.overwrite)",
        "                pass",
    ),
    ("                if value is not None:\n", "                if False:\n"),
    ("        given |= {name for name, value in of_files.items() if value is not None}\n", ""),
    ("    n_rows = records.counted(item)", "    n_rows = None"),
    ("    if first is None:\n        raise", "    if False:\n        raise"),
    ('and not as_json else "jsonl"', 'else "jsonl"'),
    ("chunk[error.index].place", "chunk[0].place"),
    ('n_cut += bool(added["truncated"])', "pass"),
    ("chunk = [first, *islice(rest, size - 1)]", "chunk = [*islice(rest, size - 1)]"),
    ("        chunk = list(islice(rest, size))", "        chunk = []"),
    (
        "return [text for text, _ in items], seconds or None",
        "return [text for text, _ in items], None",
    ),
    ('f"{value:.7g}"', 'f"{value:.3g}"'),
)
