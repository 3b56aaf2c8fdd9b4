"""Edits of minibert/training/saved_run.py, each of which a test has to notice."""

EDITS = (
    ('if not (self.model_folder / "config.json").is_file():', "if False:"),
    ('if self.run.task not in (*CLASSIFIED, "tokens"):', "if False:"),
    (
        "return self.settings.labels or tuple(self.config.labels)",
        "return tuple(self.config.labels)",
    ),
    ("source = Path.cwd() / source", "source = str(source)"),
    ('{"validation": data.validation, "test": data.test}[side]', "data.validation"),
    ("if (data.train if is_share else source) == IN_PYTHON:", "if data.train == IN_PYTHON:"),
    ("        if is_share:\n            self._check_split(found.split)\n", ""),
    ("[_short(name) for name in before] != places", "before != names"),
    ("[_short(name) for name in before] != places", "len(before) != len(names)"),
    ("not isinstance(before, list) or ", ""),
    ("thresholds = self.settings.thresholds or 0.5", "thresholds = 0.5"),
    ("logits.double() / self.settings.temperature, targets", "logits.double(), targets"),
    ("        task = replace(task, thresholds=(), temperature=1.0)  # as", "        # as"),
    (
        "odds = task.odds(found, examples) / calibration.temperature",
        "odds = task.odds(found, examples)",
    ),
    ("        self.settings.save(self.model_folder)\n", ""),
    (
        'names = self.labels if self.run.task == "multilabel" else self.labels[1:]',
        "names = self.labels",
    ),
    ("                task, mean=0.0, scale=1.0,", "                task,"),
    ("thresholds=self.settings.thresholds, temperature=self.settings.temperature,", ""),
    ("os.path.relpath(run.folder, folder)", "str(run.folder)"),
    ('str(values.get("folder", "."))', '"."'),
    ("except (ValueError, RecursionError) as error:", "except ValueError as error:"),
    (
        '        raise RunError(f"{path}: {error}") from None\n\n\ndef _read_json',
        "        raise\n\n\ndef _read_json",
    ),
)
