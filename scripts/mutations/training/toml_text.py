"""Edits of minibert/training/toml_text.py, each of which a test has to notice."""

EDITS = (
    ('.replace("\\x7f", "\\\\u007f")', ""),
    ("ensure_ascii=False", "ensure_ascii=True"),
    ("if isinstance(value, bool):", "if False:"),
    ("if len(line) <= _WIDTH:", "if True:"),
    ("len(rows[-1]) + len(item) + 6 > _WIDTH", "False"),
    ("char if char.isprintable() else", "char if True else"),
    ("        value.encode()\n", "        pass\n"),
    ("text = printable(", "text = str("),
)
