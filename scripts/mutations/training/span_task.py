"""Edits of minibert/training/span_task.py, each of which a test has to notice."""

EDITS = (
    ("_LEAST_TOKENS = 30", "_LEAST_TOKENS = 1"),
    (
        "batch.targets[:, 0], batch.targets[:, 1], mask=mask",
        "batch.targets[:, 0], batch.targets[:, 1]",
    ),
    (
        "torch.stack([out.start_logits, out.end_logits], dim=-1)",
        "torch.stack([out.end_logits, out.start_logits], dim=-1)",
    ),
    ("zip(batch.rows, parts, strict=True)", "enumerate(parts)"),
    ("examples.types[row].index(1)", "1"),
    ("stop = len(examples.ids[row]) - 1", "stop = len(examples.ids[row])"),
    ("spans.append((first + shift, stop + shift))", "spans.append((first, stop))"),
    ("            if target == LOST:\n", "            if False:\n"),
    ("            elif target != (0, 0):\n", "            else:\n"),
    ("wanted = (target[0] + shift, target[1] + shift)", "wanted = target"),
    (
        "torch.stack([found[row][0] for row in rows])",
        "torch.stack([found[row][1] for row in rows])",
    ),
    ("max_tokens=self.max_tokens)", "max_tokens=30)"),
    ("lacks = self.may_lack and best.spans", "lacks = best.spans"),
    ("best.no_answer >= best.spans[0]", "best.no_answer > best.spans[0]"),
    ("best.spans[0].stop - 1), wanted", "best.spans[0].stop), wanted"),
    ('allowed(run, "cross_entropy")', "run"),
    ("if target not in (LOST, (0, 0))]", "if target != LOST]"),
    ("may_lack = any(\n        all(", "may_lack = any(\n        any("),
    ("*(b - a + 1 for a, b in answers)", "*(b - a for a, b in answers)"),
)
