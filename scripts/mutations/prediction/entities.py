"""Edits of minibert/prediction/entities.py, each of which a test has to notice."""

EDITS = (
    ('prefix in "IE" and before[0] in "BI"', 'prefix in "IE" and before[0] != "O"'),
    (" and before[1] == label:", ":"),
    ("found[-1]._replace(stop=place + 1)", "found[-1]._replace(stop=place)"),
    ("tag[2:] or NO_TYPE", "tag[2:]"),
    ('tag == "O" or', "False or"),
    ('tag[1:2] in ("", "-")', 'tag[1:2] == "-"'),
    ('any(label != "O" for label in labels) and ', ""),
    ("and all(map(is_tag, labels))", "and any(map(is_tag, labels))"),
    ('elif prefix != "O":', "else:"),
)
