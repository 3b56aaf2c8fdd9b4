"""Edits of minibert/prediction/sequences.py, each of which a test has to notice."""

EDITS = (
    ('len(ids) > room and settings.long_text == "truncate"', "len(ids) > room"),
    ("room = Pieces(), settings.max_length - 2", "room = Pieces(), settings.max_length - 3"),
    ("room = settings.max_length - 3", "room = settings.max_length - 4"),
    ("    if room < 1:", "    if False:"),
    ("found.truncated.append(not whole)", "found.truncated.append(False)"),
    ("min(len(first), len(second), room // 2)", "min(len(first), len(second))"),
    (
        "found.truncated.append(kept < min(len(first), len(second)))",
        "found.truncated.append(False)",
    ),
    ("            if len(second) >= len(first):", "            if True:"),
    ('    if settings.long_text == "error":', "    if False:"),
    ("window_spans(n_tokens, room, settings.overlap(room))", "window_spans(n_tokens, room, 0)"),
    (
        "return Piece((*ids, *second, tokenizer.sep_id), len(ids))",
        "return Piece((*ids, *second, tokenizer.sep_id), len(ids) - 1)",
    ),
    ("key=lengths.__getitem__, reverse=True", "key=lengths.__getitem__"),
    ("return [found[row] for row in row_of]", "return found"),
    ("rows.setdefault(piece, len(rows))", "rows.setdefault(piece, 0)"),
    ("    if not values.isfinite().all():", "    if False:"),
    ("with torch.no_grad(), progress", "with torch.inference_mode(), progress"),
    ("error.index + done", "error.index"),
    ("        done += len(chunk)", "        done += 1"),
    ("    if len(seconds) != len(listed):", "    if False:"),
    (
        "logits.cpu() if logits.dtype == torch.float64 else logits.float().cpu()",
        "logits.float().cpu()",
    ),
    ("super().__init__(kind, index, why)", "super().__init__(why)"),
)
