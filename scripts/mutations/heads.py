"""Edits of minibert/heads.py, each of which a test has to notice."""

EDITS = (
    ("        if config.tie_word_embeddings:", "        if True:"),
    ("self.norm(self.activation(self.dense(hidden)))", "self.norm(self.dense(hidden))"),
    ("embeddings, self.bias)", "embeddings)"),
    ("start, end = self.spans", "end, start = self.spans"),
    ("scores.view(input_ids.shape[:2])", "scores.view(input_ids.shape[:2]).flip(1)"),
    ("config if config.num_labels == 2 else config.with_labels(2)", "config"),
    ("self.output(self.dropout(torch.tanh(", "self.output(torch.tanh(self.dropout("),
    ("self.output(self.dropout(torch.tanh(", "self.output(self.dropout(torch.sigmoid("),
    (
        "self.dropout = nn.Dropout(config.head_dropout)\n        self.output",
        "self.dropout = nn.Dropout(0.0)\n        self.output",
    ),
    ("checkpoint.initialise(made, std=config.initializer_range)", "pass"),
    ("last = last.output", "last = last.hidden"),
    ("    if width is None:", "    if True:"),
    ("only_first=self.training", "only_first=False"),
)
