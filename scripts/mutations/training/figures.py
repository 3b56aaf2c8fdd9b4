"""Edits of minibert/training/figures.py, each of which a test has to notice."""

EDITS = (
    ("self._ended >= 19 * self._seconds", "self._ended >= 0"),
    ("self._ended >= 19 * self._seconds", "self._ended > 99 * self._seconds"),
    ("    def at_end(self, trainer: Trainer) -> None:\n        self._draw(trainer)\n", ""),
    ("            self._log.read()\n", ""),
    ("            if line != self._said:\n", "            if True:\n"),
    ("metric=trainer.metric", 'metric="loss"'),
    ("        if enabled:\n", "        if True:\n"),
    ("purge_step=self._from_step + 1", "purge_step=self._from_step"),
    ("self._writer is not None and math.isfinite(value)", "self._writer is not None"),
    ("            self._writer = None\n            reason", "            reason"),
    ('"validation", metrics, trainer.step', '"train", metrics, trainer.step'),
    ("self._attempt(self._writer.close)", "pass"),
    ("if isinstance(error, ImportError):", "if False:"),
    ("' '.join(str(error).split())", "str(type(error))"),
)
