"""Edits of minibert/training/run.py, each of which a test has to notice."""

EDITS = (
    ("        tokenizer.check_embeddings(saved.vocab_size, source)\n", ""),
    ("    if allow_changes and not resume:\n", "    if False:\n"),
    ("trainer.resume(allow_changes=allow_changes)", "trainer.resume()"),
    ("from_step=trainer.step)", "from_step=0)"),
    ("if trainer.stopping or (", "if ("),
    (" and not trainer.stopped_early):\n", "):\n"),
    ("        trainer.restore_best()\n", ""),
    ("        if not held:\n", "        if False:\n"),
    ("        if holds_run and not (resume or overwrite):\n", "        if False:\n"),
    (' or steps(folder / "checkpoints")\n', "\n"),
    ("            path.unlink(missing_ok=True)\n", ""),
    ("            signal.signal(number, handler)\n", "            pass\n"),
    ("        signal.signal(signal.SIGTERM, before)\n", "        pass\n"),
    ("    if name not in names:\n", "    if False:\n"),
    ("run.training.metric or evaluation.metrics.main", "evaluation.metrics.main"),
)
