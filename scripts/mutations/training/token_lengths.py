"""Edits of minibert/training/token_lengths.py, each of which a test has to notice."""

EDITS = (
    ("int(share * len(self.tokens) + 0.5) - 1", "int(share * len(self.tokens) + 0.5)"),
    ("max(0, int(", "max(1, int("),
    ("sum(n > max_length for", "sum(n >= max_length for"),
    ("<= _CUT_SHARE", "<= 2 * _CUT_SHARE"),
    ("if step < self.positions]", "]"),
    ("fits[0] if fits", "fits[-1] if fits"),
    ("min(self.positions, _STEPS[-1])", "self.positions"),
    ("* _TOKENS_A_WORD) + 1 + len(texts)", "* _TOKENS_A_WORD) + 2"),
    ("if texts and len(texts[0]) > 1 else None", "if False else None"),
    ("return Lengths(sorted(tokens), how", "return Lengths(tokens, how"),
    ("if isinstance(each, list) else each.split()", ""),
)
