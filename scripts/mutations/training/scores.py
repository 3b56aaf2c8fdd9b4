"""Edits of minibert/training/scores.py, each of which a test has to notice."""

EDITS = (
    ("(found < 0) | (found >= n_labels)", "found >= n_labels"),
    ("wide[:, 1] - wide[:, 0]", "wide[:, 0] - wide[:, 1]"),
    ("    _check_scores(kept, ruled_out=True)\n", ""),
    (" | (scores.amax(dim=-1, keepdim=True) == -math.inf)", ""),
    ("first[1:] = rows[1:] != rows[:-1]", "first[1:] = False"),
    ("starts.gather(1, ends[:, None])[:, 0]", "logits[0].argmax(dim=1)"),
    ("ranks = (scores >= right)", "ranks = 1 + (scores > right)"),
)
