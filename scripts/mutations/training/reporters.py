"""Edits of minibert/training/reporters.py, each of which a test has to notice."""

EDITS = (
    ("sys.stderr.isatty() if shown is None else shown", "bool(shown)"),
    ("initial=record.step - 1", "initial=0"),
    ("0.95 * self._loss + 0.05 * record.loss", "record.loss"),
    ("int(0.95 * self._examples)", "self._examples"),
    ("0.95 * self._seconds", "self._seconds"),
    ("trainer.best.step == trainer.step", "trainer.best.step"),
    ("list(metrics.items())[:6]", "list(metrics.items())"),
    ("            self._bar.close()\n", "            pass\n"),
    ("if from_step and path.exists()", "if path.exists()"),
    ('path.open("ab", buffering=0)', 'path.open("ab")'),
    ("            os.fsync(self._file.fileno())\n", "            pass\n"),
    ("            self._file.truncate(end)\n", ""),
    (
        "        except ValueError:\n            continue\n",
        "        except ValueError:\n            break\n",
    ),
    ('values.get("step", 0) <= step', 'values.get("step", 0) < step'),
    ("if isinstance(values, dict) and", "if"),
    ("isinstance(value, float) and not math.isfinite(value)", "False"),
)
