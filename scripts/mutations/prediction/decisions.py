"""Edits of minibert/prediction/decisions.py, each of which a test has to notice."""

EDITS = (
    ("torch.where(odds > 0, found.clamp(min=_HALF_UP), found)", "found"),
    ("probabilities(odds) > thresholds", "probabilities(odds) >= thresholds"),
    ("odds > 0", "odds >= 0"),
)
