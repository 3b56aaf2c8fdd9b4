"""What do the answers look like, whatever the cause?"""

import statistics

from minibert.doctor.findings import Finding, finding
from minibert.doctor.history import History

_WINDOW = 40


def never_predicted(history: History) -> Finding | None:
    """Labels of which there may be several: not one is given."""
    found = history.last(_WINDOW)
    if len(found) < _WINDOW or found[0].kind != "presences" or found[0].n_labels < 2:
        return None
    there, given = (
        int(history.label_counts(_WINDOW).sum()),
        int(history.answer_counts(_WINDOW).sum()),
    )
    if not history.is_past(100) or given or not there:
        return None
    rows = history.n_rows(_WINDOW)
    rarest = int(history.label_counts(_WINDOW).min())
    return finding(
        "never-predicted",
        f"in the last {_WINDOW} updates {there:,} labels were there on {rows:,} texts, and none "
        f"was given a probability above 0.5; the rarest was there {rarest} times; the loss, "
        f"{history.loss(_WINDOW):.3g}, falls all the same",
        settings={"loss.pos_weight": '"balanced"'},
    )


def always_predicted(history: History) -> Finding | None:
    """Labels of which there may be several: nearly all are given to everything."""
    found = history.last(_WINDOW)
    if len(found) < _WINDOW or found[0].kind != "presences" or found[0].n_labels < 2:
        return None
    cells = history.n_rows(_WINDOW) * found[0].n_labels
    given = int(history.answer_counts(_WINDOW).sum()) / cells
    there = int(history.label_counts(_WINDOW).sum()) / cells
    if not history.is_past(100) or given < 0.8 or there > 0.5:
        return None
    return finding(
        "always-predicted",
        f"in the last {_WINDOW} updates {given:.0%} of all labels were given, {there:.0%} were "
        "there",
    )


def majority_only(history: History) -> Finding | None:
    """One class for every input, though answers differ in how sure they are."""
    found = history.last(_WINDOW)
    if len(found) < _WINDOW or found[0].kind == "numbers":
        return None
    # Who has begun to learn gets more time: the rare ones come last.
    patience = 0.5 if history.has_learnt(_WINDOW) else 0.25
    if not history.is_past(history.warmup + 80, share=patience):
        return None
    labels, answers = history.label_counts(_WINDOW), history.answer_counts(_WINDOW)
    rows = history.n_rows(_WINDOW)
    if found[0].kind == "presences":
        if found[0].n_labels > 1 or int(answers[0]) not in (0, rows):
            return None
        said, others = "present" if int(answers[0]) else "absent", int(labels[0])
        others = rows - others if int(answers[0]) else others
        most, n_labels = max(others, rows - others), 2
    else:
        place = int(answers.argmax())
        if int(answers[place]) < rows:
            return None
        said, others = f"class {place}", rows - int(labels[place])
        most, n_labels = int(labels.max()), len(labels)
    # Where labels are about equally frequent there is no majority to give in to: what is wrong then
    # is what `alike` and `does_not_learn` tell, and no weight of a class mends it.
    if most < 1.25 * rows / n_labels:
        return None
    if others < max(5, 0.005 * rows):
        return None
    of_words = not found[0].is_about_texts
    settings = {} if of_words else {"loss.class_weights": '"balanced"'}
    return finding(
        "majority-only",
        f"all answers of the last {_WINDOW} updates, {rows:,}, are {said}; {others:,} of them are "
        f"something else ({others / rows:.1%}); the loss is {history.plain_loss(_WINDOW):.3g}, "
        f"label frequencies alone give {history.chance_loss(_WINDOW):.3g}",
        settings=settings,
    )


def alike(history: History) -> Finding | None:
    """Answers that do not hang on the input."""
    n = 20
    found = history.last(n)
    if len(found) < n or not history.is_past(50, share=0.1) or history.has_learnt(n):
        return None
    spread = history.spread(n)
    if found[0].kind == "numbers":
        target = statistics.fmean(each.target_spread for each in found)
        if spread > 0.1 * target or not target:
            return None
        told = f"targets spread by {target:.3g}, answers by {spread:.2g}"
    else:
        if spread > 0.02:
            return None
        told = f"log-odds differ by {spread:.2g} between inputs"
    return finding(
        "outputs-alike",
        f"{told} over {history.n_rows(n):,} rows; the loss is {history.plain_loss(n):.4g}, label "
        f"frequencies alone give {history.chance_loss(n):.4g}",
    )


def collapsed(history: History) -> Finding | None:
    """Vectors of different texts that have become one."""
    n = 3
    if len(history.cosines) < n or not history.is_past(50) or history.has_learnt():
        return None
    cosine = min(history.cosines[-n:])
    if cosine < 0.999:
        return None
    return finding(
        "vectors-collapse",
        f"the vectors that the head gets of different texts have a mean cosine of {cosine:.4f}, "
        f"{history.cosines[0]:.4f} at first",
    )


def sure_and_wrong(history: History) -> Finding | None:
    n = 20
    found = history.last(n)
    if len(found) < n or not history.is_past(30):
        return None
    share = statistics.fmean(each.sure_and_wrong for each in found)
    if share < 0.1:
        return None
    return finding(
        "sure-and-wrong",
        f"{share:.0%} of the last {history.n_rows(n):,} answers have a probability beyond 0.99 and "
        f"are wrong; the loss is {history.plain_loss(n):.3g}, label frequencies alone give "
        f"{history.chance_loss(n):.3g}",
    )


def unrelated(history: History) -> Finding | None:
    """Everything is as it should be, and the labels cannot be told from the texts."""
    n = 20
    found = history.last(n)
    if not history.pretrained or len(found) < n or not history.has_had_time():
        return None
    # What had been learnt and was lost, as at too high a rate, was there to be learnt.
    if history.had_learnt or history.is_falling() or not found[0].is_about_texts:
        return None
    if history.has_learnt(n, share=0.985):
        return None
    frequent = 0 if found[0].kind == "numbers" else int(history.label_counts(n).max())
    if frequent > 0.8 * history.n_rows(n):  # which alone says nearly all
        return None
    part, drift = history.encoder_drift()
    return finding(
        "labels-unrelated",
        f"after {history.step} updates, which moved {part} by {drift:.1%}, the loss of the last "
        f"{n} is {history.plain_loss(n):.4g}, label frequencies alone give "
        f"{history.chance_loss(n):.4g}",
    )


def does_not_learn(history: History) -> Finding | None:
    n = 30
    patience = min(120, round(0.8 * history.total)) if history.total else 120
    if len(history.last(n)) < n or not history.is_past(patience, share=0.35):
        return None
    if history.has_learnt(n, share=0.985) or history.is_falling():
        return None
    return finding(
        "does-not-learn",
        f"after {history.step} updates the loss of the last {n} is {history.plain_loss(n):.4g}, "
        f"label frequencies alone give {history.chance_loss(n):.4g}",
    )


RULES = (
    unrelated,
    never_predicted,
    always_predicted,
    majority_only,
    alike,
    collapsed,
    sure_and_wrong,
    does_not_learn,
)
