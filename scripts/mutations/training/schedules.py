"""Edits of minibert/training/schedules.py, each of which a test has to notice."""

EDITS = (
    ("return step / warmup if", "return (step + 1) / warmup if"),
    ("(step - warmup) / (total - warmup) if", "step / total if"),
    (" if step < total else 1.0", " if total > warmup else 1.0"),
    ("(1 + math.cos(math.pi * progress)) / 2", "math.cos(math.pi * progress)"),
    ("(progress * (restarts + 1)) % 1.0", "(progress * restarts) % 1.0"),
    ("return end + (1 - end) * ", "return end + "),
    ("total, warmup)) ** power", "total, warmup))"),
    ("timescale = warmup or _TIMESCALE", "timescale = _TIMESCALE"),
    ("_TIMESCALE = 10_000", "_TIMESCALE = 1_000"),
    ("<= total or total < 1:", "<= total:"),
    ("    if step < 0:\n", "    if False:\n"),
    ("self.bad_evaluations > self.patience", "self.bad_evaluations > 1"),
    ("self.multiplier * self.factor, self.minimum", "self.multiplier * self.factor, 0"),
    ("return metric > self.best + self.threshold", "return metric > self.best"),
    ("return metric < self.best - self.threshold", "return metric < self.best"),
    ("return not math.isnan(metric)", "return True"),
    ("            self.best = metric\n", "            self.best = 0.5\n"),
)
