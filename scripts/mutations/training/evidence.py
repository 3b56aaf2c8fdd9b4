"""Edits of minibert/training/evidence.py, each of which a test has to notice."""

EDITS = (
    ("ratio = present[0] / present[-1] if", "ratio = present[0] / present[0] if"),
    ("present = [n for _, n in counts if n]", "present = [n for _, n in counts]"),
    ('if choice.task == "tokens" else n_rows', ""),
    ("n_repeated = survey.n_compared - n_texts", "n_repeated = survey.n_rows - n_texts"),
    ("*roles.labels) - n_texts", ") - n_texts"),
    ("if survey.n_compared == survey.n_rows else", "if True else"),
    ('survey.n_rows - survey.columns[key].kinds["str"]', "0"),
    ('if choice.task == "multilabel" else column.n_empty', ""),
    ("found.append((numbers.n_others,", "found.append((0,"),
    ("if name not in choice.counts}", "if False}"),
    ("for n, why in found if n]", "for n, why in found]"),
    ("0 < len(column.counts) <= _SHOWN_VALUES", "False"),
    ("if len(columns) > _SHOWN_COLUMNS:", "if False:"),
)
