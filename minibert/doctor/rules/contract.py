"""Do network, loss and labels speak of the same thing?"""

import statistics

import torch
from torch import Tensor

from minibert.doctor.findings import Finding, finding
from minibert.doctor.history import History
from minibert.doctor.signals import entropy, same

_ROW = 8  # updates in a row that settle what one may be by chance
_RUNS = 20


def probabilities(history: History) -> Finding | None:
    """Logits that are known to be squashed, or lie within [0, 1] in batch after batch."""
    known = history.last(_ROW)
    kinds = {each.squashed_by for each in known}
    if len(known) == _ROW and len(kinds) == 1 and (kind := known[0].squashed_by):
        return finding(
            "probabilities-as-logits",
            f"what is given as logits is the {kind} of what the head gives, in {_ROW} batches",
        )
    found = history.last(_RUNS)
    if len(found) < _RUNS or found[0].kind == "numbers" or "" in kinds:
        return None
    if not all(each.in_unit and (each.kind == "presences" or each.sum_to_one) for each in found):
        return None
    rows = sum(each.n_rows for each in found)
    told = "" if found[0].kind == "presences" else " and sum to 1 in each row"
    return finding(
        "probabilities-as-logits",
        f"all logits of {rows:,} rows in {_RUNS} batches lie between 0 and 1{told}; those of a "
        "network have both signs",
    )


def sum_as_loss(history: History) -> Finding | None:
    """A loss that is the mean times the number of rows."""
    found = history.with_losses(_ROW)
    factors = []
    for loss, each in found:
        n_terms = each.n_rows * (each.n_labels if each.kind == "presences" else 1)
        sums = [n for n in {each.n_rows, n_terms} if n > 1 and same(loss, n * each.plain_loss)]
        factors += sums[:1]
    if len(factors) < _ROW:
        return None
    loss, last = found[-1]
    return finding(
        "loss-is-a-sum",
        f"the loss is {loss:.4g}, the mean over {last.n_rows} rows is {last.plain_loss:.4g}: "
        f"{factors[-1]} times as much, in {_ROW} updates",
    )


def scaled(history: History) -> Finding | None:
    """Logits that are the head's answers times a number far from 1."""
    found = history.last(_ROW)
    factors = [each.scale for each in found if each.scale is not None]
    if len(factors) < _ROW or max(factors) > 1.02 * min(factors) or 0.2 <= factors[-1] <= 5:
        return None
    return finding(
        "logits-are-scaled",
        f"what is given as logits is {factors[-1]:.3g} times what the head gives, in {_ROW} "
        "batches",
    )


def over_the_batch(history: History) -> Finding | None:
    """A loss that is cross-entropy, but of columns."""
    found = history.with_losses(_ROW)
    if not found or any(each.loss_of_columns is None or each.n_rows < 2 for _, each in found):
        return None
    if not all(same(loss, each.loss_of_columns or 0.0) for loss, each in found):
        return None
    if any(same(loss, each.plain_loss) for loss, each in found):
        return None
    loss, last = found[-1]
    return finding(
        "loss-over-the-batch",
        f"the loss is {loss:.4g}, what a softmax over the {last.n_rows} rows of the batch gives; "
        f"over the {last.n_labels} classes it is {last.plain_loss:.4g}",
    )


def far_from_plain(history: History) -> Finding | None:
    """A loss that is more than ten times the plain one, or less than a tenth, and not in step."""
    found = history.with_losses(_ROW)
    shares = [
        loss / each.plain_loss
        for loss, each in found
        if each.plain_loss > 0.05 and each.kind != "numbers"
    ]
    if len(shares) < _ROW or not (min(shares) > 10 or 0 < max(shares) < 0.1):
        return None
    if max(shares) < 1.1 * min(shares):  # divided, or multiplied, by a number: what a loop may do
        return None
    loss, last = found[-1]
    return finding(
        "loss-is-far-from-plain",
        f"the loss is {loss:.3g}, where plain cross-entropy is {last.plain_loss:.3g}: "
        f"{min(shares):.2g} to {max(shares):.2g} times as much in {_ROW} updates",
    )


def wrong_sign(history: History) -> Finding | None:
    found = history.with_losses(_ROW)
    if not found or not all(same(-loss, each.plain_loss) for loss, each in found):
        return None
    loss, last = found[-1]
    return finding(
        "loss-has-the-wrong-sign",
        f"the loss is {loss:.4g}; of these logits and labels it is {last.plain_loss:.4g}",
    )


def ignored_class(history: History) -> Finding | None:
    """A loss that is the mean over all rows but those of one class."""
    found = history.with_losses(_ROW)
    if not found or found[0][1].loss_without is None or not found[0][1].is_about_texts:
        return None
    told: Tensor | None = None
    for loss, each in found:
        assert each.loss_without is not None
        if same(loss, each.plain_loss):
            return None
        fits = (each.loss_without - loss).abs() < 1e-3 * max(loss, 1e-3)
        fits &= each.labels > 0
        told = fits if told is None else told & fits
    assert told is not None
    if int(told.sum()) != 1:
        return None
    missing = int(told.nonzero()[0, 0])
    rows = int(history.label_counts(_ROW)[missing])
    return finding(
        "class-is-ignored",
        f"the loss of {_ROW} updates is the mean over all rows but those of class {missing}, of "
        f"which there were {rows:,}: it is ignored",
    )


def label_runs(history: History) -> Finding | None:
    """Batches whose labels are far less mixed than those of all batches together."""
    found = history.last(_RUNS)
    if len(found) < _RUNS or found[0].kind != "classes" or not found[0].is_about_texts:
        return None
    if statistics.fmean(each.n_rows for each in found) < 8:
        return None
    overall = entropy(torch.stack([each.labels for each in history.signals]).sum(0))
    within = statistics.fmean(entropy(each.labels) for each in found)
    if overall < 0.2 or within > 0.3 * overall:
        return None
    return finding(
        "labels-in-runs",
        f"within a batch the labels have an entropy of {within:.3f} nats, over all batches "
        f"{overall:.3f}: most batches hold one label",
        settings={"data.length_pool": "1"} if history.setting("data.length_pool", 1) > 1 else {},
    )


def whole_numbers(history: History) -> Finding | None:
    """Targets of a regression that may be names."""
    found = history.last(_RUNS)
    if len(found) < _RUNS or found[0].kind != "numbers":
        return None
    whole = [each.whole_targets for each in found if each.whole_targets is not None]
    values = frozenset[float]().union(*whole)
    if len(whole) < _RUNS or not 3 <= len(values) <= 20:
        return None
    rows = sum(each.n_rows for each in found)
    return finding(
        "classes-as-numbers",
        f"the targets of {rows:,} rows are {', '.join(f'{v:g}' for v in sorted(values)[:6])}"
        f"{' …' if len(values) > 6 else ''}, and nothing between",
    )


RULES = (
    probabilities, scaled, over_the_batch, sum_as_loss, wrong_sign, ignored_class, label_runs,
    far_from_plain, whole_numbers,
)  # fmt: skip
