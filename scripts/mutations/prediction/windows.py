"""Edits of minibert/prediction/windows.py, each of which a test has to notice."""

EDITS = (
    ("logits * (wide / total[owners])", "logits / total[owners]"),
    ("return tokens.clamp(min=1)", "return tokens"),
    ("return tokens.clamp(min=1)", "return tokens.clamp(min=1, max=1)"),
    ("heard = heard.masked_fill(~best, -1.0)", "heard = heard * 0"),
    ("best = counted == counted.amax(dim=1, keepdim=True)", "best = counted > -1"),
    (
        "winners = mean.masked_fill(~best, -math.inf).argmax(dim=1)",
        "winners = best.double().argmax(dim=1)",
    ),
    ("weights[:, None] * agreeing", "weights[:, None]"),
    ("wins = (votes > 0) | ((votes == 0) & (heard > 0))", "wins = votes > 0"),
    ("wins = (votes > 0) | ((votes == 0) & (heard > 0))", "wins = heard > 0"),
    ("(votes == 0) & (heard > 0)", "(votes == 0) & (heard >= 0)"),
    ("here = torch.minimum(place, place.flip(0))", "here = place"),
    ("here = torch.minimum(place, place.flip(0))", "here = place.flip(0)"),
    ("better = here > context[start:stop]", "better = here >= context[start:stop]"),
    ("shift = sizes.cumsum(0)[:-1] - torch.tensor", "shift = sizes.cumsum(0)[1:] - torch.tensor"),
    ("sum(dim=1).argmin())]", "sum(dim=1).argmax())]"),
    ("torch.maximum(merged[start:stop], wide)", "wide"),
    ("max(score, found.get(key, -math.inf))", "score"),
    ("(-found[key], *key))[:top_k]", "(-found[key],))[:top_k]"),
    ("torch.cat([null.cpu()[None], merged])", "merged"),
    ("min(max_tokens, n_tokens)", "n_tokens"),
    ("for at, score in best if score > -math.inf", "for at, score in best"),
    (
        "scores.argsort(descending=True, stable=True)[:top_k]",
        "scores.argsort(descending=True, stable=True)[:1]",
    ),
)
