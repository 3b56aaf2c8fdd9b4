"""Edits of minibert/prediction/loading.py, each of which a test has to notice."""

EDITS = (
    ('if (folder / "run.json").is_file() and not', "if not"),
    ('        name = folder / "model"\n', "        pass\n"),
    ('        if not (folder / "model" / "config.json").is_file():', "        if False:"),
    (
        "PredictionSettings.of(folder, config) if given is None else given",
        "PredictionSettings.of(folder, config)",
    ),
    ("    if settings.task not in tasks:\n        command", "    if False:\n        command"),
    ("        check_task(settings, self.tasks)\n", ""),
    (
        "    if settings.max_length > config.max_position_embeddings:",
        "    if settings.max_length >= config.max_position_embeddings:",
    ),
    ("    if settings.max_length > config.max_position_embeddings:", "    if False:"),
    ('named.replace("PreTraining", "MaskedLM") != head', "named != head"),
    ("    if named is not None and", "    if False and"),
    ("whole=True", "whole=False"),
    ('tokenizer.check_embeddings(model.config.vocab_size, "the tokenizer")', "pass"),
    ("return model.eval()", "return model"),
    ("    if settings.pairs and not given:", "    if False:"),
    ("given and settings.pairs is False", "given and not settings.pairs"),
    ("    if given and config.type_vocab_size < 2:", "    if config.type_vocab_size < 2:"),
    ("except (RuntimeError, AssertionError) as error:", "except AssertionError as error:"),
)
