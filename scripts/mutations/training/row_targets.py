"""Edits of minibert/training/row_targets.py, each of which a test has to notice."""

EDITS = (
    (
        "(run.data.text, run.data.text_pair, *run.data.negatives)",
        "(run.data.text, run.data.text_pair)",
    ),
    ('    if run.task != "multilabel":\n        raise', "    if False:\n        raise"),
    ("if _flag(row, name) in _TRUE]", "if _flag(row, name) in _FALSE]"),
    ("        return [value]  # missing", "        return []  # missing"),
    ("return [text] if text else []", "return [text]"),
    (".split(run.data.label_separator) if part.strip()]", ".split(run.data.label_separator)]"),
    (
        "label_names(run.task, (), data.labels or data.label)",
        "label_names(run.task, (), data.label)",
    ),
    ("for problem in problems.bad[n_before:]}", "for problem in problems.bad[:n_before]}"),
    ("    if scheme is None or run.data.labels:", "    if scheme is None:"),
    ("    if rows and not found:", "    if False:"),
    (
        'return complete(label_names("tokens", found), scheme)',
        'return label_names("tokens", found)',
    ),
    ("    if scheme is None:\n        return tags if", "    if True:\n        return tags if"),
    ("return [str(tag).strip() for", "return [str(tag) for"),
    ('run.task == "binary" and run.head.num_labels == 1', 'run.task == "binary"'),
    ("if tags[-1] and _are_words(found)", "if tags[-1] and found"),
    ("            tags.append([])\n", "            tags.append([None])\n"),
    (
        "isinstance(value, list) and all(isinstance(each, str) for each in value)",
        "isinstance(value, list)",
    ),
    ("text if len(text) <= 60 else", "text if True else"),
    (".strip().casefold()", ".casefold()"),
)
