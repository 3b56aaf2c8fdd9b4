"""Edits of minibert/prediction/settings.py, each of which a test has to notice."""

EDITS = (
    ("self.max_length // 2", "self.max_length"),
    ("size // (4 if self.task in _BY_TOKEN else 8)", "size // 8"),
    ("min(given, size // 2)", "given"),
    (
        "            if getattr(self, key) != default and self.task not in tasks:",
        "            if False:",
    ),
    (
        "        for key in values:\n            if key not in known:",
        "        for key in ():\n            if key not in known:",
    ),
    ('        if "task" not in values:', "        if False:"),
    ("values[key] = tuple(values[key])", "values[key] = list(values[key])"),
    ("        if (folder / FILE).is_file():", "        if False:"),
    (
        "min(said or config.max_position_embeddings, config.max_position_embeddings)",
        "config.max_position_embeddings",
    ),
    ("length = read_recipe(folder, config, said).max_length", "pass"),
    ('"windows" if task in _BY_TOKEN else "truncate"', '"truncate"'),
    ("pairs=True if task in COMPARED else None", "pairs=None"),
    ('return "binary" if count == 1 else "multilabel"', 'return "multilabel"'),
    ('return "binary" if count == 2 else "multiclass"', 'return "multiclass"'),
    ('if kind in (None, "regression") and count == 1:', 'if kind == "regression" and count == 1:'),
    ("self.temperature > 0", "True"),
    ("low <= value <= high and value != math.inf", "low <= value <= high"),
    (
        "if not isinstance(value, int | float) or isinstance(value, bool):",
        "if not isinstance(value, int | float):",
    ),
    (
        "isinstance(value, int) and not isinstance(value, bool) and value >= least",
        "isinstance(value, int) and value >= least",
    ),
    ('head in (None, "BertModel") and (folder', "(folder"),
    ('"BertForPreTraining": "masked_lm",', ""),
    ('("no_answer", False, ("spans",)),', ""),
    ('("max_answer_tokens", 30, ("spans",)),', ""),
    ("_is_count(self.max_answer_tokens, 1)", "True"),
)
