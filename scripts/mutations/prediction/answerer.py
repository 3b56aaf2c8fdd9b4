"""Edits of minibert/prediction/answerer.py, each of which a test has to notice."""

EDITS = (
    ("window / self.settings.temperature for", "window for"),
    ("windows.nulls / self.settings.temperature if", "windows.nulls if"),
    ("if choice.no_answer else None", "if False else None"),
    ("top_k=choice.top_k * _SPARE", "top_k=choice.top_k"),
    ("            if len(question) > room // 2:", "            if False:"),
    ("size = context.ids[1:-1], room - len(question)", "size = context.ids[1:-1], room"),
    ("window[piece.n_first : -1]", "window[piece.n_first - 1 : -2]"),
    (
        "torch.stack([window[0] for window in logits])",
        "torch.stack([window[-1] for window in logits])",
    ),
    ("[out.start_logits, out.end_logits]", "[out.end_logits, out.start_logits]"),
    ("        while first > 0 and words[first - 1] == words[first]:", "        while False:"),
    (
        "        while last + 1 < len(words) and words[last + 1] == words[last]:",
        "        while False:",
    ),
    (
        "found.setdefault((start, end), Candidate(text[start:end], probability, start, end))",
        "found[start, end] = Candidate(text[start:end], probability, start, end)",
    ),
    ("key=lambda candidate: -candidate.score", "key=lambda candidate: candidate.start"),
    ("ordered[: choice.top_k]", "ordered"),
    ("    if choice.no_answer:", "    if True:"),
    ("spans[-1][1] < len(ids)))", "False))"),
    ("        check_pairs(settings, model.config, given=True)\n", ""),
    ("        if value < 1:", "        if value < 0:"),
    ("self.settings.no_answer if no_answer is None else no_answer", "bool(no_answer)"),
    ("max_answer_tokens = self.settings.max_answer_tokens", "max_answer_tokens = 30"),
)
