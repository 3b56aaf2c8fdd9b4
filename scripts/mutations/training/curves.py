"""Edits of minibert/training/curves.py, each of which a test has to notice."""

EDITS = (
    ("if value is not None:", "if True:"),
    ("file.seek(self._offset)", "file.seek(0)"),
    ('whole = text[: text.rfind(b"\\n") + 1]', "whole = text"),
    ('if values["count"]:', "if True:"),
    ("math.nan if best is None else best[1]", "math.nan"),
    ('if metric == "loss" or metric not in names:', 'if metric == "loss":'),
    ("[metric] if metric in LOWER_IS_BETTER else", ""),
    ("places + window // 2 + 1, len(values)", "places + window // 2, len(values)"),
    (
        "stretches.argmin(axis=1), stretches.argmax(axis=1)",
        "stretches.argmax(axis=1), stretches.argmax(axis=1)",
    ),
    ("places = np.concatenate([places, np.arange(whole, len(x))])", "pass"),
    ("grid[0, 0] if names else grid[0, :]", "grid[0, 0]"),
    ("_mark(loss, best)", "pass"),
    ('best if metric != "loss" else None', "None"),
    ("len(curve.steps) == 1 for curve", "len(curve.steps) == 0 for curve"),
    ("log.epochs[1:31]", "log.epochs[2:31]"),
    (
        "for i, (name, curve) in enumerate(shown.items()):",
        "for i, (name, curve) in enumerate(list(shown.items())[:1]):",
    ),
    ('alone = "o" if len(steps) == 1 else None', "alone = None"),
    ("max(values) > 30 * min(values)", "max(values) > 3000 * min(values)"),
    ('.replace("e-0", "e-")', ""),
    (
        "with replacing(path) as part:\n            figure.savefig(part",
        "if True:\n            figure.savefig(path",
    ),
)
