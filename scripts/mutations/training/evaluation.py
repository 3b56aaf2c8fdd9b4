"""Edits of minibert/training/evaluation.py, each of which a test has to notice."""

EDITS = (
    ("metrics_of(task.name, labels, thresholds=thresholds)", "metrics_of(task.name, labels)"),
    ("self._loss / self._count if self._count else 0.0, **figures", "self._loss, **figures"),
    (
        "self._loss / self._count if self._count else 0.0, **figures",
        "self._loss / self._count, **figures",
    ),
    (
        'return {"loss": self._loss / self._count if self._count else 0.0, **figures}',
        'return {**figures, "loss": self._loss / self._count if self._count else 0.0}',
    ),
    ("        self.metrics.reset()\n", ""),
    ("        report.figures.update(more)\n", ""),
    ("        self._loss = self._count = 0.0\n        batches", "        batches"),
    ('self._loss += float(each.pop("sum"))', 'self._loss = float(each.pop("sum"))'),
    (
        'self._count += float(each.pop("count"))',
        'self._count += batch.n_examples + 0 * float(each.pop("count"))',
    ),
    (
        "each_batch(self.examples, _BATCH, self.task.prepare)",
        "each_batch(self.examples, 64, self.task.prepare)",
    ),
    ('float(each.pop("sum"))', 'float(each["sum"])'),
)
