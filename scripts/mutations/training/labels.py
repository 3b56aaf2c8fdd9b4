"""Edits of minibert/training/labels.py, each of which a test has to notice."""

EDITS = (
    ('        found.discard("")\n', ""),
    ("names = sorted(found, key=int if whole else None)", "names = sorted(found)"),
    ('if task == "binary" and len(names) > 2:', "if False:"),
    ('names.append(f"not {names[0]}")', "pass"),
    ("targets.append(ids.get(name, _REFUSED))", "targets.append(ids.get(name, 0))"),
    ("target[ids[name]] = 1.0", "target[ids[name]] += 1.0 + row"),
    ("        if not math.isfinite(number):", "        if math.isnan(number):"),
    ("and not isinstance(value, bool):\n            try:", ":\n            try:"),
    ("if len(tags) != len(row_words):", "if len(tags) < len(row_words):"),
    ("not isinstance(answer, str | int | float)", "False"),
    ("        if not bare:", "        if not said:"),
    ("place += len(said) - len(said.lstrip())", "pass"),
    ("place < 0 or not text.startswith(bare, place)", "place < 0"),
    ("(place, place + len(bare))", "(place, place + len(said))"),
    ("int(value) if isinstance(value, float) and value.is_integer() else value", "value"),
    ("value is None or (isinstance(value, float) and math.isnan(value))", "value is None"),
    ("                if label >= 0:\n", "                if label > 0:\n"),
    ("if several or _is_missing(value):", "if _is_missing(value):"),
    ('name.removeprefix("-").isdecimal()', "name.isdecimal()"),
)
