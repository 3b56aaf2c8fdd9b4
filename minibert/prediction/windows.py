"""What the windows of a long text gave, merged into what is said of the text.

Pure functions over tensors.  Windows stand one below the other, text after text, and each text has
one at least; `owners` has the number of each window's text, `tokens` how many of its tokens the
window holds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minibert.prediction.decisions import decide


def logits_of_texts(
    logits: Float[Tensor, "windows labels"],
    tokens: Int[Tensor, " windows"],
    owners: Int[Tensor, " windows"],
    n_texts: int,
    *,
    task: str,
    how: str,
    thresholds: Sequence[float] = (),
    temperature: float = 1.0,
) -> Float[Tensor, "texts labels"]:
    """The logits of each text: the mean of its windows, or those of the windows that win the vote.

    Args:
        task: of `TextClassifier`.
        how: "mean", or "vote": each window then votes as a text alone is decided on.
        thresholds, temperature: by which that is decided.
    """
    if how == "mean":
        return mean_of_windows(logits, tokens, owners, n_texts)
    odds = logits.double() / temperature
    limits = torch.tensor(thresholds or (0.5,), dtype=torch.double)
    if task == "multilabel" or logits.shape[1] == 1:
        return vote_of_presence(logits, tokens, owners, n_texts, decide(odds, limits))
    if task == "binary":
        votes = decide(odds[:, 1] - odds[:, 0], limits[0]).long()
    else:
        votes = odds.argmax(dim=1)
    return vote_of_classes(logits, tokens, owners, n_texts, votes)


def mean_of_windows(
    logits: Float[Tensor, "windows labels"],
    tokens: Int[Tensor, " windows"],
    owners: Int[Tensor, " windows"],
    n_texts: int,
) -> Float[Tensor, "texts labels"]:
    """The mean of each text's windows, weighted by their tokens; of one window its logits."""
    if len(owners) == n_texts:
        return logits
    return _weighted(logits, _weights(tokens)[:, None], owners, n_texts)


def vote_of_classes(
    logits: Float[Tensor, "windows labels"],
    tokens: Int[Tensor, " windows"],
    owners: Int[Tensor, " windows"],
    n_texts: int,
    votes: Int[Tensor, " windows"],
) -> Float[Tensor, "texts labels"]:
    """The mean of the windows that voted for the class which most windows of the text voted for.

    Each window's class is in `votes`.  Of classes with equally many votes that one wins whose
    windows hold more tokens, then the one with the higher mean logit over all windows, then the
    first.  So the merged logits decide as the vote did, are logits as a single window's, and give
    the probability that the windows which agree on the answer see in it.
    """
    if len(owners) == n_texts:
        return logits
    weights = _weights(tokens)
    counted = torch.zeros(n_texts, logits.shape[1], dtype=torch.double, device=logits.device)
    heard = counted.clone()
    ones = torch.ones_like(weights, dtype=torch.double)
    counted.index_put_((owners, votes), ones, accumulate=True)
    heard.index_put_((owners, votes), weights.double(), accumulate=True)
    mean = _weighted(logits, weights[:, None], owners, n_texts).double()
    best = counted == counted.amax(dim=1, keepdim=True)
    heard = heard.masked_fill(~best, -1.0)
    best = heard == heard.amax(dim=1, keepdim=True)
    winners = mean.masked_fill(~best, -math.inf).argmax(dim=1)
    agreeing = (votes == winners[owners])[:, None]
    return _weighted(logits, weights[:, None] * agreeing, owners, n_texts)


def vote_of_presence(
    logits: Float[Tensor, "windows labels"],
    tokens: Int[Tensor, " windows"],
    owners: Int[Tensor, " windows"],
    n_texts: int,
    present: Bool[Tensor, "windows labels"],
) -> Float[Tensor, "texts labels"]:
    """As `vote_of_classes`, for labels that are present or absent each by itself.

    Of as many votes for as against a label the side wins whose windows hold more tokens, then its
    absence.
    """
    if len(owners) == n_texts:
        return logits
    weights = _weights(tokens)[:, None]
    votes, heard = (
        torch.zeros(n_texts, logits.shape[1], dtype=torch.double, device=logits.device).index_add_(
            0, owners, torch.where(present, each, -each).double()
        )
        for each in (torch.ones_like(weights), weights)
    )
    wins = (votes > 0) | ((votes == 0) & (heard > 0))
    return _weighted(logits, weights * (present == wins[owners]), owners, n_texts)


def odds_of_votes(
    odds: Float[Tensor, "windows labels"],
    tokens: Int[Tensor, " windows"],
    owners: Int[Tensor, " windows"],
    n_texts: int,
) -> Float[Tensor, "texts labels"]:
    """The odds that stand for a text where its windows vote: what a threshold is fitted on.

    By `vote_of_presence` a text has the label where the threshold is lower than these odds, and
    nowhere else: they are those of one of its windows, the middle one where all hold as much.
    """
    found = torch.empty(n_texts, odds.shape[1], dtype=odds.dtype)
    for text in range(n_texts):
        ordered, order = odds[owners == text].sort(dim=0, descending=True)
        n_for = torch.arange(1, len(order) + 1)[:, None]
        heard = _weights(tokens[owners == text])[order].cumsum(dim=0)
        wins = (2 * n_for > len(order)) | ((2 * n_for == len(order)) & (2 * heard > heard[-1]))
        found[text] = ordered.gather(0, wins.int().argmax(dim=0, keepdim=True))[0]
    return found


def clearest_windows(spans: Sequence[tuple[int, int]]) -> Int[Tensor, " tokens"]:
    """The window in which each token of a text has the most context on its poorer side.

    Of equal windows it is the first.  The edges of the text itself count as those of a window: it
    makes no difference, for of two windows that is nearer to the edge which shows more there too.

    Args:
        spans: (start, stop) of the windows, which cover the text in order.
    """
    n_tokens = spans[-1][1]
    chosen = torch.zeros(n_tokens, dtype=torch.long)
    context = torch.full((n_tokens,), -1)
    for number, (start, stop) in enumerate(spans):
        place = torch.arange(stop - start)
        here = torch.minimum(place, place.flip(0))
        better = here > context[start:stop]
        chosen[start:stop][better] = number
        context[start:stop][better] = here[better]
    return chosen


def merge_tokens(
    logits: Sequence[Tensor], spans: Sequence[tuple[int, int]]
) -> Float[Tensor, "tokens labels"]:
    """The logits of each token of a text, from the window where it has the most context.

    Not the mean of the windows: at the edge of one the network does not see what the token depends
    on, and a mean would mix that in; and so they are logits that the network gave.
    Source: google-research/bert, run_squad.py, `_check_is_max_context`.

    Args:
        logits: of each window `(window, labels)`, without special tokens.
        spans: (start, stop) of the windows, which cover the text in order.
    """
    if len(spans) == 1:
        return logits[0]
    chosen = clearest_windows(spans)
    sizes = torch.tensor([0, *(stop - start for start, stop in spans)])
    shift = sizes.cumsum(0)[:-1] - torch.tensor([start for start, _ in spans])
    return torch.cat(list(logits))[(torch.arange(len(chosen)) + shift[chosen]).to(logits[0].device)]


class ScoredSpan(NamedTuple):
    """Tokens of a text, and the probability that they are the answer."""

    start: int
    stop: int  # the first token behind it
    probability: float


class BestSpans(NamedTuple):
    """The best answers, and the probability that there is none."""

    spans: list[ScoredSpan]  # the best first
    no_answer: float  # 0 where that was no choice


def best_spans(
    logits: Sequence[Tensor],
    spans: Sequence[tuple[int, int]],
    nulls: Float[Tensor, "windows 2"] | None,
    *,
    max_tokens: int,
    top_k: int = 1,
) -> BestSpans:
    """The answers that score best in any window: logit of the start and logit of the end together.

    A probability is that of the start among all tokens of the text, by softmax, times that of the
    end; a token that is in two windows counts once, with its higher logit.  So windows compete by
    their logits, and one without the answer does not win by what it divides among its own tokens.
    Equal answers come in the order of the text, the shorter first.

    Args:
        logits: of each window `(window, 2)`, start and end of its tokens of the text.
        spans: (start, stop) of the windows, which cover the text in order.
        nulls: what stands for "no answer", the two logits of each window's [CLS]; the window that
            believes least in it speaks for all.  None: there is an answer.
        max_tokens: that an answer may have.
        top_k: how many to give at most.
    """
    null = None
    if nulls is not None:
        null = nulls[int(nulls.double().sum(dim=1).argmin())].double()
    merged = torch.full((spans[-1][1], 2), -math.inf, dtype=torch.double)
    found: dict[tuple[int, int], float] = {}
    for window, (start, stop) in zip(logits, spans, strict=True):
        wide = window.double().cpu()
        merged[start:stop] = torch.maximum(merged[start:stop], wide)
        for first, last, score in _best_of_window(wide, max_tokens, top_k):
            key = (first + start, last + start + 1)
            found[key] = max(score, found.get(key, -math.inf))
    choices = merged if null is None else torch.cat([null.cpu()[None], merged])
    total = float(choices.logsumexp(dim=0).sum()) if len(choices) else 0.0
    ordered = sorted(found, key=lambda key: (-found[key], *key))[:top_k]
    return BestSpans(
        [ScoredSpan(*key, math.exp(found[key] - total)) for key in ordered],
        0.0 if null is None else math.exp(float(null.sum()) - total),
    )


def _best_of_window(
    logits: Float[Tensor, "window 2"], max_tokens: int, top_k: int
) -> list[tuple[int, int, float]]:
    """First token, last token and score of the best spans."""
    n_tokens = len(logits)
    if not n_tokens:
        return []
    width = min(max_tokens, n_tokens)
    ends = F.pad(logits[:, 1], (0, width - 1), value=-math.inf).unfold(0, width, 1)
    scores = (logits[:, :1] + ends).flatten()  # of (start, length - 1), one row after the other
    # Stable, so that equal scores stay in the order of the text.
    order = scores.argsort(descending=True, stable=True)[:top_k]
    best = zip(order.tolist(), scores[order].tolist(), strict=True)
    return [
        (at // width, at // width + at % width, score) for at, score in best if score > -math.inf
    ]


def _weights(tokens: Int[Tensor, " windows"]) -> Int[Tensor, " windows"]:
    """What windows weigh; an empty text has one window, which needs some weight."""
    return tokens.clamp(min=1)


def _weighted(
    logits: Float[Tensor, "windows labels"],
    weights: Tensor,
    owners: Int[Tensor, " windows"],
    n_texts: int,
) -> Float[Tensor, "texts labels"]:
    """The weighted mean of each text's windows; weights are `(windows, labels)` or `(windows, 1)`,
    and those of a text and a label sum to more than 0."""
    wide = weights.to(logits.dtype).expand_as(logits)
    empty = torch.zeros(n_texts, logits.shape[1], dtype=logits.dtype, device=logits.device)
    total = empty.index_add(0, owners, wide)
    return empty.index_add(0, owners, logits * (wide / total[owners]))
