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
    ("rows = slice(start, start + count * length)", "rows = slice(0, count * length)"),
)
