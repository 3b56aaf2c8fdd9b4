"""Edits of minibert/training/splits.py, each of which a test has to notice."""

EDITS = (
    ("if not 0 < fraction < 1:", "if False:"),
    ("math.floor(fraction * len(rows) + 0.5)", "math.ceil(fraction * len(rows))"),
    ("    if len(units) < 2:", "    if False:"),
    ("else str(value).split()", "else [str(value)]"),
    ('if name not in (None, ""):', "if True:"),
    ("if name not in (None", "if False and name not in (None"),
    ('f"{seed}\\0{name}".encode()', 'f"{hash(name)}{seed}".encode()'),
    ('f"{seed}\\0{name}"', 'f"{name}"'),
    ("strata[min((", "strata[max(("),
    ("for unit in stratum[:-1]:", "for unit in stratum:"),
    ("len(units[unit]) / 2 <= share", "len(units[unit]) <= share"),
    ("return chosen or {", "return chosen if True else {"),
    (
        "for stratum in strata:\n        share += fraction",
        "for stratum in strata:\n        share = fraction",
    ),
)
