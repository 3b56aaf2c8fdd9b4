"""Edits of minibert/training/sniff.py, each of which a test has to notice."""

EDITS = (
    (
        "encoding, evidence = _encoding(files, open_file)",
        "encoding, evidence = _encoding(files[:1], open_file)",
    ),
    ("place = several if len(folders) > 1 else", "place = several if True else"),
    (
        'if all(format_of(file.file_name) not in (None, "txt") for file in files):',
        "if False:",
    ),
    ("or (bool(files[0].member) and len(files) > 1)", ""),
    ("(bool(files[0].member) and len(files) > 1)", "bool(files[0].member)"),
    ("none_fewer = min(counts) == columns", "none_fewer = True"),
    ("if share < (0.5 if none_fewer else 0.9):", "if share < 0.9:"),
    ("if marked < len(words) / 2 and needed < marked / 2:", "if False:"),
    ("    if enclosed:\n", "    if False:\n"),
    ("_is_enclosed(plain.rows[1:], i)", "_is_enclosed(plain.rows, i)"),
    ("return len(values) > 1 and all(", "return all("),
    (" and row[column]]", "]"),
    ("if len(set(below)) <= len(below) / 2:", "if False:"),
    ("if not 2 <= len(labels) <= len(parts) / 5", "if not 2 <= len(labels)"),
    ("windows = windows and not high &", "windows = windows or not high &"),
    ("if columns < 2 or n_rows", "if n_rows"),
)
