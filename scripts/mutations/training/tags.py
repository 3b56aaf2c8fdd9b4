"""Edits of minibert/training/tags.py, each of which a test has to notice."""

EDITS = (
    ('"BIOES": "BIES"', '"BIOES": "BIE"'),
    ('types = {name[1:] for name in names if name != "O"}', "types = {name[1:] for name in names}"),
    ('sorted({"O", *(prefix', "sorted({*(prefix"),
    ('r"O|[BIESLU](-.*)?"', 'r"O.*|[BIESLU](-.*)?"'),
    ('r"O|[BIESLU](-.*)?"', 'r"O|[BIESLU].*"'),
    ('str.maketrans("LU", "ES")', 'str.maketrans("LU", "SE")'),
    ("if all(map(_TAG.fullmatch, tags)):", "if any(map(_TAG.fullmatch, tags)):"),
    ("n_entities += len(spans)", "n_entities += len(tags)"),
    ("broken[scheme] += _n_broken(", "broken[scheme] += 0 < _n_broken("),
    ("best = min(", "best = max("),
    ("return best if n_entities else None", "return best"),
    ("for scheme in (source, target):", "for scheme in (source,):"),
    ("if not _TAG.fullmatch(tag):", "if False:"),
    ("_n_broken(tags, spans, source)", "_n_broken(tags, spans, target)"),
    ('if scheme == "BILOU":', 'if scheme == "BIOES":'),
    ('tags = write_tags(spans, length, "BIOES")', 'tags = write_tags(spans, length, "BIO")'),
    ("sum(a[0] != b[0]", "sum(a != b"),
)
