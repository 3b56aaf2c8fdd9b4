"""Edits of minibert/prediction/tagger.py, each of which a test has to notice."""

EDITS = (
    ("firsts.setdefault(word, place)", "firsts[word] = place"),
    ("encoding.word_ids[1:-1]):", "encoding.word_ids[:-2]):"),
    ("next(windows)[1:-1]", "next(windows)[:-2]"),
    ("found.logits.double() / self.settings.temperature", "found.logits.double()"),
    ('("O" if "O" in self.labels else self.labels[0], 0.0)', '("O", 0.0)'),
    ("*seen.get(number, unseen)", "*seen[number]"),
    ("(found.get(word, (start, end))[0], end)", "(start, end)"),
    ("start += len(given) + 1", "start += len(given)"),
    ("_entities(whole, words) if self.has_entities else ()", "_entities(whole, words)"),
    ("reading.encoding.n_truncated > 0", "False"),
    (" / (stop - first)\n", " / stop\n"),
    ("words[stop - 1].end", "words[first].end"),
    ('None if self.settings.long_text != "truncate" else self.settings.max_length', "None"),
    ("if not isinstance(text, str)\n        ]", "]"),
)
