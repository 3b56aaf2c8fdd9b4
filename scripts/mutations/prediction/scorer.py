"""Edits of minibert/prediction/scorer.py, each of which a test has to notice."""

EDITS = (
    ("        if model.config.num_labels != 1:", "        if False:"),
    ("keepdim=True).clamp(-1, 1)", "keepdim=True)"),
    ("torch.tensor_split(normalise(vectors), 2)", "torch.tensor_split(vectors * 2, 2)"),
    ("        if pairs is None:\n            raise", "        if False:\n            raise"),
    ("[a or b for a, b", "[a and b for a, b"),
    ("[max(a, b) for a, b", "[min(a, b) for a, b"),
    ("truncated.append(spans[-1][1] < len(ids))", "truncated.append(False)"),
    ('("second text", index - half)', '("second text", index)'),
    ("embedder.recipe = replace(embedder.recipe, max_length=settings.max_length)", "pass"),
    ("        check_task(self.settings, COMPARED)", "        pass"),
    ('tasks = ("regression",)', 'tasks = ("regression", "similarity")'),
    ("        check_pairs(self.settings, self.model.config, given=pairs is not None)\n", ""),
    ("long_text=self.settings.long_text,  # type", 'long_text="truncate",  # type'),
    ("self.embedder.recipe.max_length - 2", "self.embedder.recipe.max_length - 1"),
)
