"""Edits of minibert/training/problems.py, each of which a test has to notice."""

EDITS = (
    ("reversed(self.bad)", "self.bad"),
    ("if path.is_file() and not _is_ours(path):", "if False:"),
    ("(Path(name), *Path(name).parents)", "(Path(name),)"),
    ('errors="backslashreplace", ', ""),
)
