"""Edits of minibert/training/parts.py, each of which a test has to notice."""

EDITS = (
    ("if len(roles) == 1 else None", "if roles else None"),
    ('r"[A-Z]?[a-z]+|[A-Z]+|\\d+"', 'r"[A-Za-z]+|\\d+"'),
    ("return not path.exists() and any", "return any"),
    ("if len(training) == 1 else path", "if training else path"),
    (' == "train"] or tables', ' == "train"]'),
    ("    if len(chosen) != 1:\n", "    if not chosen:\n"),
    ("        or any(Path(place) in Path(other).parents for other in places)\n", ""),
    ("Path(place).name in _UNLABELLED", "False"),
    ('if role in ("validation", "test"):', "if False:"),
    ("chosen = equal or (named", "chosen = equal or ([]"),
    ('(named if role == "train" else [])', "named"),
    ("chosen = equal or", "chosen ="),
    (" and each.is_dir() == path.is_dir()", ""),
    ('not each.name.startswith(".") and', ""),
    ("while len({place[0]", "while False and len({place[0]"),
)
