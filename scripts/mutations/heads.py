"""Edits of minibert/heads.py, each of which a test has to notice."""

EDITS = (
    ("        if config.tie_word_embeddings:", "        if True:"),
    ("self.norm(self.activation(self.dense(hidden)))", "self.norm(self.dense(hidden))"),
    ("embeddings, self.bias)", "embeddings)"),
    ("start, end = self.spans", "end, start = self.spans"),
    ("scores.view(input_ids.shape[:2])", "scores.view(input_ids.shape[:2]).flip(1)"),
    ("config if config.num_labels == 2 else config.with_labels(2)", "config"),
)
