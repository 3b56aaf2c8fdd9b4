"""Edits of minibert/training/metrics.py, each of which a test has to notice."""

EDITS = (
    ("        if len(found) != len(wanted):", "        if False:"),
    ('        if self.task != "spans":', "        if False:"),
    ("self._batches.append((pairs[0], pairs[1]))", "self._batches.append((pairs[0], pairs[0]))"),
    ("shared.clamp(min=0)", "shared"),
    ('"perplexity", "rmse", "mae"})', '"rmse", "mae"})'),
    ("        return not math.isnan(new)\n", "        return False\n"),
    ("return new < old if", "return new <= old if"),
    ("if not columns or not len(columns[0]):", "if not columns:"),
    ("if each.n_target or each.n_predicted]", "]"),
    ("    if max(n_target) == len(targets):", "    if False:"),
    ("elif max(n_predicted) == len(targets):", "elif False:"),
    ("ranked = ranks.double() / len(levels)", "ranked = scores"),
    ("(last - (counts - 1) / 2)[place]", "last[place]"),
    ("other = _areas(-odds, 1 - targets)", "other = (roc, pr)"),
    ("shared.clamp(min=0)", "shared"),
    ('return (f"not {labels[0]}", labels[0])', "return labels"),
    ("    if len(targets) < 2:", "    if False:"),
    ("(found == wanted).all(dim=1)", "(found == wanted).any(dim=1)"),
    ("right.all(dim=1).double()", "right.any(dim=1).double()"),
    ("        self._batches.clear()", "        pass"),
)
