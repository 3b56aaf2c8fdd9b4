"""Edits of minibert/training/proposal.py, each of which a test has to notice."""

EDITS = (
    ("    if not rows.n_rows:\n", "    if False:\n"),
    ("is_clean=not unusable(rows, roles, choice)", "is_clean=True"),
    ("        if part in parts.sources:\n", "        if False:\n"),
    ("or (task is None and _are_tagged(rows))", ""),
    ("        if text or text_pair or labels:\n", "        if False:\n"),
    ('    if dialect.format == "txt":\n', "    if False:\n"),
    ('is_labelled=task != "masked_lm"', "is_labelled=True"),
    ('    if "masked_lm" not in TASKS or', "    if"),
    ("if len(lists) > 1\n", "if False\n"),
    ('raise DataError(f"{name}: {error}") from None', "raise"),
    ('if dialect.format == "jsonl":', "if False:"),
    ("_MOST_UNUSABLE *", "1.0 *"),
    ("            other.key_of(key, sources[0])\n", "            pass\n"),
    ("        del found.sources[part]\n", ""),
    ("    if n_shared_rows:\n", "    if False:\n"),
    ("if encoding != found.dialect.encoding and", "if False and"),
    ("        found.is_clean = False\n", ""),
)
