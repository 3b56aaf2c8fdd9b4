"""Edits of minibert/training/data_files.py, each of which a test has to notice."""

EDITS = (
    ("if grown > max(_BOMB_BYTES, ", "if grown > max(1 << 60, "),
    ('".." in name.split("/") or ', ""),
    ("if (file.path, file.member) in seen:", "if False:"),
    ("if not chosen and len(tops) == 1:", "if False:"),
)
