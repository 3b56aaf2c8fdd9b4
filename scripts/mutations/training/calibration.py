"""Edits of minibert/training/calibration.py, each of which a test has to notice."""

EDITS = (
    ("middle if middle < high else low", "middle"),
    ("if low < high and n_positive:", "if low < high:"),
    ("(score, -abs(value - 0.5), value)", "(score, value, value)"),
    ("value = 0.5 if low <= 0.5 < high else", "value ="),
    ("2 * right / (there + n_positive)", "right / there"),
    ("temperature = math.exp(-(low + high) / 2)", "temperature = math.exp((low + high) / 2)"),
    ("math.exp(low)) >= 0:", "math.exp(low)) > 1e9:"),
    ("math.exp(high)) <= 0:", "math.exp(high)) < -1e9:"),
    ("        _ece(cooled, wanted),", "        _ece(scores, wanted),"),
    ("scores = scores - scores.amax(dim=1, keepdim=True)", "pass"),
)
