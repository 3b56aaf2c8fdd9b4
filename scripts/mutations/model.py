"""Edits of minibert/model.py, each of which a test has to notice."""

EDITS = (
    ("self.norm(token, segment, ", "self.norm(token, "),
    ("self.position(layout.positions)", "self.position(layout.positions * 0)"),
    ("return self.dropout(self.norm(", "return (self.norm("),
    ("/ math.sqrt(q.shape[-1])", ""),
    ("masked_fill(~visible, -math.inf)", "masked_fill(~visible, -1.0)"),
    ("masked_fill(~visible, 0.0)", "masked_fill(~visible, 1.0)"),
    ("ops.dropout(probabilities, dropout)", "probabilities"),
    ("q, k, v = qkv.unbind(dim=-3)", "k, q, v = qkv.unbind(dim=-3)"),
    ("self.dropout if self.training else 0.0", "self.dropout"),
    ("self.attention_norm(hidden, self", "self.attention_norm(self"),
    ("self.feed_forward_norm(hidden, self", "self.feed_forward_norm(self"),
    ("return torch.tanh(self.dense(", "return (self.dense("),
    ("token_type_ids = torch.zeros_like(", "token_type_ids = torch.ones_like("),
    ("            q = layout.first(q)\n", "            q = q[: len(layout.first(q))]\n"),
    (
        "            hidden = layout.first(hidden)\n",
        "            hidden = hidden[: len(attended)]\n",
    ),
    (" and top.attention.attend is ops.attention", ""),
    (" and isinstance(layout, Packed) and top", " and top"),
    ("only_first=True), layout.firsts()", "only_first=True), layout"),
    ("high >= table.num_embeddings", "high > table.num_embeddings"),
    ('optional = ("pooler",)', "optional = ()"),
)
