"""Edits of minibert/training/dataset.py, each of which a test has to notice."""

EDITS = (
    ('    if not parts["train"]:', "    if False:"),
    (
        "fingerprint(rows) for rows in parts.values()",
        'fingerprint(rows) for rows in (parts["train"],)',
    ),
    ("if n_windows > len(rows) else", "if n_windows else"),
    ("n_windows = len(encoded.examples.texts)", "n_windows = len(encoded.examples)"),
    ("    _check_scale(run, {name: targets", "    ({name: targets"),
    (
        '    if run.data.bad_rows == "error":\n        problems.raise_if_any()\n    return Side',
        "    return Side",
    ),
    (
        '    if problems.bad:\n        raise DataError(f"{problems.summary()}; mend',
        '    if False:\n        raise DataError(f"{problems.summary()}; mend',
    ),
    ("    if not len(encoded.examples):", "    if False:"),
    ('_read_parts(run, Problems(), ("train",))[0]', "_read_parts(run, Problems())[0]"),
    ('if "train" in names or (shared and "validation" in names):', "if True:"),
    ("data.train, data.train_rows, problems)", "data.train, None, problems)"),
    ("data.validation, data.validation_rows, problems)", "data.validation, None, problems)"),
    ('group=run.data.group or ("document" if lines else None),', "group=run.data.group,"),
    (
        '    if run.task in ("binary", "multiclass", "multilabel"):\n        return partial',
        "    if False:\n        return partial",
    ),
    ("wanted = [*text_columns(run), *label_columns(run)]", "wanted = [*text_columns(run)]"),
    ("str(row.place) if data.id is None else str(row.value(data.id))", "str(row.place)"),
    ("if not (by_number and has_header) or", "if not by_number or"),
    ("    if source is None:\n        return []\n", ""),
    ("for n, name in shown[:8])", "for n, name in shown)"),
    ("    elif shown[0][0] > 4 * shown[-1][0]:", "    elif shown[0][0] >= 4 * shown[-1][0]:"),
    ("    elif not shown[-1][0]:", "    elif False:"),
    ('or run.data.sampling != "none":', "or False:"),
    ('run.task == "multilabel" or run.head.num_labels == 1', 'run.task == "multilabel"'),
)
