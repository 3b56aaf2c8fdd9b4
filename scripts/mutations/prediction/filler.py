"""Edits of minibert/prediction/filler.py, each of which a test has to notice."""

EDITS = (
    ("ids[start:place].count", "ids[:place].count"),
    ("clearest_windows(spans)[masked].tolist()", "[0] * len(masked)"),
    ("            if not masked:", "            if False:"),
    ("            if masked[-1] >= spans[-1][1]:", "            if masked[-1] > spans[-1][1]:"),
    ("(logits / self.settings.temperature)", "logits"),
    ("likely[:, : self.tokenizer.vocab_size]", "likely"),
    ("min(top_k, likely.shape[1])", "min(top_k, 3)"),
    ("in reversed(list(zip", "in (list(zip"),
    ("before.rstrip()", "before"),
    ("{token[2:]}", "{token}"),
    ("spans[-1][1] < len(ids), len(spans)", "False, len(spans)"),
    ("        if top_k < 1:", "        if top_k < 0:"),
    ("next(best)[place.row]", "next(best)[0]"),
)
