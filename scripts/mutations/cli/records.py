"""Edits of minibert/cli/records.py, each of which a test has to notice."""

EDITS = (
    ("if self.path == STDIN and self.dialect.format is None:", "if False:"),
    ('        if self.format == "txt":', "        if False:"),
    ("encoding=self.dialect.encoding", 'encoding="utf-8"'),
    ("            if isinstance(row, BadRow):", "            if False:"),
    ("            read(row)\n", ""),
    ("        if not count:", "        if False:"),
    ("default not in row.values and len(row.values) == 1", "False"),
    (
        'str):\n        raise _no_text(row, column or default, value, "a text")',
        'object):\n        raise _no_text(row, column or default, value, "a text")',
    ),
    ("    if path.is_file() and not overwrite:", "    if False:"),
    ("path.samefile(source)", "False"),
    ("        if len(values) != len(row.values) + len(added):", "        if False:"),
    (
        "            if unknown := values.keys() - set(self._columns):",
        "            if unknown := set():",
    ),
    ("with _telling(self.path), ExitStack() as stack:", "with ExitStack() as stack:"),
    (
        "        with _telling(self.path):\n            self._stack.__exit__(*error)",
        "        self._stack.__exit__(*error)",
    ),
    ('f"predicted_{name}" if name in row.values else name', "name"),
    ("    if taken:", "    if False:"),
    ("if not any(value.separator in part for part in parts):", "if True:"),
    ("        if path is None:\n            raise", "        if False:\n            raise"),
    ('delimiter = "," if self._format == "csv" else "\\t"', 'delimiter = ","'),
)
