"""Edits of minibert/training/encoding.py, each of which a test has to notice."""

EDITS = (
    ("self.cut_texts += n_cut > 0", "self.cut_texts += n_cut"),
    ('of_words, every = run.task == "tokens"', 'of_words, every = run.task != "binary"'),
    ('data.label_all_pieces and what == "train"', "data.label_all_pieces"),
    ('None if data.long_text == "windows" else data.max_length', "data.max_length"),
    ('if encoding.n_truncated and run.data.long_text == "error":', "if False:"),
    (
        "window_spans(len(inner), max_length - 2, overlap)",
        "window_spans(len(inner), max_length, overlap)",
    ),
    ("target[1 + start : 1 + stop]", "target[start:stop]"),
    ("        found.starts.append(start)\n", "        found.starts.append(stop)\n"),
    ("(run.data.max_length - 2) // 2", "run.data.max_length - 2"),
    ("first = word is not None and word != before", "first = word is not None"),
    ("(first or every) else IGNORED", "first else IGNORED"),
    (
        "owners = [rows[i] for i in chunk for _ in columns]",
        "owners = [rows[0] for i in chunk for _ in columns]",
    ),
    (
        "[data.text, data.text_pair, *data.negatives]",
        "[data.text_pair, data.text, *data.negatives]",
    ),
    ("found.starts.append(start - n_first)", "found.starts.append(start)"),
    ("if n_question > room // 2:", "if n_question > room:"),
    ("if begin < stop and end > start]", "if begin <= stop and end > start]"),
    (
        "if start <= first and last < stop else NOWHERE",
        "if start <= first and last <= stop else NOWHERE",
    ),
    ("for each in found) else [LOST] * len(spans)", "for each in found) else found"),
    ("if document is None or document != before:", "if document != before:"),
    ("if by_empty_lines else row.place.file", "if by_empty_lines else row.place"),
)
