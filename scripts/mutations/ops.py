"""Edits of minibert/ops.py, each of which a test has to notice."""

EDITS = (
    ('"gelu": F.gelu,', '"gelu": partial(F.gelu, approximate="tanh"),'),
    ('"gelu_new": partial(F.gelu, approximate="tanh"),', '"gelu_new": F.gelu,'),
    ('"silu": F.silu,', '"silu": F.relu,'),
    ("attn_mask=visible", "attn_mask=None"),
    ("dropout_p=dropout", "dropout_p=0.0"),
    ("if terms[0].dtype in _HALVES else", "if False else"),
    ("for term in terms[1:]", "for term in terms[2:]"),
    ("bias.to(x.dtype), eps)", "bias.to(x.dtype), 2 * eps)"),
    ("for each, ns in ((q, queries), (k, lengths)", "for each, ns in ((q, queries), (q, lengths)"),
    ("asking = len(q) == len(layout.lengths)", "asking = False"),
    ("scores.softmax(dim=-1), share)", "scores.softmax(dim=-1), 0.0)"),
    ("torch.promote_types(q.dtype, torch.float32)", "q.dtype"),
    ("torch.autocast(q.device.type, enabled=False)", "torch.no_grad()"),
    ("not 0 < n_dropped < 2**16", "not 0 < n_dropped"),
    (".random_(-(2**63), None)", ".random_()"),
    (">= n_dropped - 2**15", "> n_dropped - 2**15"),
    ("factor = 2**16 / (2**16 - n_dropped)", "factor = 1.0"),
    ("(gradients[0] * ones).mul_(ctx.factor)", "gradients[0] * ones"),
    ("self.p if self.training else 0.0", "self.p"),
)
