"""Real ways in which training a BERT fails, each made on real data, and each mended.

A case is trained twice: as people report that they had it, and with what mends it.
`tests/test_training_failures.py` holds that the doctor finds the cause first and that the remedy
mends it; `scripts/training_failures.py` writes them down in docs/training-failures.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from failure_runs import (
    FileRun,
    LoopRun,
    OverflowRun,
    Result,
    Run,
    TagRun,
    emotions,
    known_sentiment,
    little_sentiment,
    many_questions,
    questions,
    rare_blame,
    sentiment,
    similarities,
    spam,
    sst2,
    stsb,
    swapped_sentiment,
    three_kinds_of_questions,
    told_sentiment,
    trec,
    weighted_blame,
)

REFUSED = "refused"


Tables = Callable[[Path], Mapping[str, Any]]
Loop = LoopRun | TagRun


@dataclass(frozen=True, kw_only=True)
class Case:
    """A failure.

    Attributes:
        name: of its section.
        story: how it looks to whom it happens.
        finding: what the doctor has to name first; REFUSED where no update is to be made.
        remedy: the setting, or the line of code, that mends it.
        figure: what is compared before and after.
        lower_is_better: of the figure.
        lies: is the figure before too good to be true, and falls when mended?
        failed, mended: the two runs.
    """

    name: str
    story: str
    finding: str
    remedy: str
    figure: str
    failed: Run
    mended: Run
    lower_is_better: bool = False
    lies: bool = False

    @property
    def runs(self) -> tuple[Run, Run]:
        return self.failed, self.mended

    def verdict(self, failed: Result, mended: Result) -> str:
        """What speaks against it; "" where the cause is named first and the remedy mends it."""
        if mended.refused:
            return f"the mended run was refused: {mended.refused}"
        if self.finding == REFUSED:
            return "" if failed.refused else "it was trained, expected that it is refused"
        grave = [each["name"] for each in failed.findings if each["severity"] != "info"]
        if grave[:1] != [self.finding]:
            return f"{grave} was found, expected {self.finding} first"
        if self.finding in [each["name"] for each in mended.findings]:
            return f"{self.finding} was found in the mended run too"
        better = failed.figure > mended.figure
        if not (self.lower_is_better or self.lies):
            better = mended.figure > failed.figure
        return "" if better else f"{self.figure} was {failed.figure:g}, is {mended.figure:g}"


@dataclass(frozen=True, kw_only=True)
class Harmless:
    """What is said to be a failure, and is none.

    Attributes:
        advice: what is said.
        usual, other: a run without it and one with it.
        margin: by how much their figures may differ by chance.
    """

    name: str
    advice: str
    figure: str
    usual: Run
    other: Run
    margin: float

    @property
    def runs(self) -> tuple[Run, Run]:
        return self.usual, self.other

    def verdict(self, usual: Result, other: Result) -> str:
        """What speaks against it; "" where both go alike, and nothing is found."""
        grave = [e["name"] for e in (*usual.findings, *other.findings) if e["severity"] != "info"]
        if grave:
            return f"{grave} was found, expected nothing"
        if abs(usual.figure - other.figure) > self.margin:
            return f"{self.figure} is {usual.figure:g} without it and {other.figure:g} with it"
        return ""


def _by_settings(
    tables: Tables, figure: str, faulty: dict[str, Any], mended: dict[str, Any] | None = None
) -> dict[str, Run]:
    """Both runs of a case that is a matter of settings."""
    return {
        "failed": FileRun(tables, figure, tuple(faulty.items())),
        "mended": FileRun(tables, figure, tuple((mended or {}).items())),
    }


def _by_data(faulty: Tables, mended: Tables, figure: str) -> dict[str, Run]:
    """Both runs of a case that is a matter of what is trained on."""
    return {"failed": FileRun(faulty, figure), "mended": FileRun(mended, figure)}


def _in_loop(run: Loop, fault: str, mended: str = "") -> dict[str, Run]:
    """Both runs of a case that is a matter of a loop's code."""
    return {"failed": replace(run, fault=fault), "mended": replace(run, fault=mended)}


_QUESTIONS = LoopRun(trec, 6)
_REVIEWS = LoopRun(sst2, 1, figure="loss", n_updates=35)
_PAIRS = LoopRun(stsb, 1, figure="spread")
_SPREAD = "spread of answers, in that of targets"

CASES: tuple[Case, ...] = (
    Case(
        name="The rate is too high",
        story="After a few updates every text gets the same answer, and nothing changes any more.",
        finding="rate-too-high",
        remedy="optimizer.learning_rate = 1e-4",
        figure="macro_f1",
        **_by_settings(spam, "macro_f1", {"optimizer.learning_rate": 5e-2}),
    ),
    Case(
        name="The rate is too low",
        story="The loss stays where it began, for as long as one waits.",
        finding="rate-too-low",
        remedy="optimizer.learning_rate = 1e-4",
        figure="accuracy",
        **_by_settings(questions, "accuracy", {"optimizer.learning_rate": 1e-8}),
    ),
    Case(
        name="The rate was picked from a hat",
        story="A rate that was right elsewhere; of many that are tried, none seems to help.",
        finding="rate-too-high",
        remedy="minibert doctor --find-rate",
        figure="accuracy",
        failed=FileRun(questions, "accuracy", (("optimizer.learning_rate", 3e-3),)),
        mended=FileRun(questions, "accuracy", finds_rate=True),
    ),
    Case(
        name="Every pair gets the same score",
        story="A regression that answers the mean of all scores, whatever the pair.",
        finding="rate-too-high",
        remedy="optimizer.learning_rate = 1e-4",
        figure="spearman",
        **_by_settings(similarities, "spearman", {"optimizer.learning_rate": 1e-2}),
    ),
    Case(
        name="A third class in a binary task",
        story="Target and input sizes that differ, or a loss out of range, deep in the training.",
        finding=REFUSED,
        remedy='task = "multiclass"',
        figure="accuracy",
        **_by_settings(three_kinds_of_questions, "accuracy", {"task": "binary"}),
    ),
    Case(
        name="The rare class is never predicted",
        story="Accuracy is 0.90 and looks well; not one rare example is found.",
        finding="majority-only",
        remedy='loss.class_weights = "balanced"',
        figure="macro_f1 of the best checkpoint",
        failed=FileRun(rare_blame, "macro_f1", of_best=True),
        mended=FileRun(weighted_blame, "macro_f1", of_best=True),
    ),
    Case(
        name="The metric hides the rare class",
        story="The best checkpoint by accuracy is the one that knows the frequent class alone.",
        finding="metric-hides-classes",
        remedy='training.metric = "macro_f1"',
        figure="macro_f1 of the best checkpoint",
        failed=FileRun(
            weighted_blame, "macro_f1", (("training.metric", "accuracy"),), of_best=True
        ),
        mended=FileRun(weighted_blame, "macro_f1", of_best=True),
    ),
    Case(
        name="No label is ever predicted",
        story="Many labels, each of them rare: the loss falls, and macro-F1 is exactly 0.",
        finding="never-predicted",
        remedy='loss.pos_weight = "balanced"',
        figure="macro_f1",
        **_by_settings(emotions, "macro_f1", {}, {"loss.pos_weight": "balanced"}),
    ),
    Case(
        name="Pretraining is overwritten",
        story="It trains, but ends well below what others report of the same model and data.",
        finding="rate-is-unusual",
        remedy="optimizer.learning_rate = 1e-4",
        figure="accuracy",
        **_by_settings(
            sentiment,
            "accuracy",
            {"optimizer.learning_rate": 1e-3, "schedule.warmup_fraction": 0.0},
        ),
    ),
    Case(
        name="Decay takes the weights away",
        story="A weight_decay that was meant for another optimizer, or has lost its comma.",
        finding="weights-shrink",
        remedy="optimizer.weight_decay = 0.01",
        figure="accuracy",
        **_by_settings(questions, "accuracy", {"optimizer.weight_decay": 300.0}),
    ),
    Case(
        name="The encoder is frozen though there is much data",
        story="Only the head learns, and stays far below what the encoder could.",
        finding="frozen-with-much-data",
        remedy='training.freeze = ""',
        figure="accuracy",
        **_by_settings(many_questions, "accuracy", {"training.freeze": "encoder"}),
    ),
    Case(
        name="Frozen layers drop values at random",
        story="requires_grad is off, and train() is on: the head gets other vectors every time.",
        finding="frozen-but-dropping",
        remedy="model.bert.eval()",
        figure="accuracy",
        **_in_loop(
            replace(_QUESTIONS, rate=1e-2, n_updates=120), "frozen in training mode", "frozen"
        ),
    ),
    Case(
        name="Most of each text is cut away",
        story="A max_length from an example, for texts that are longer.",
        finding="texts-are-cut",
        remedy="data.max_length = 64",
        figure="accuracy",
        **_by_settings(sentiment, "accuracy", {"data.max_length": 6}),
    ),
    Case(
        name="A long text is not to be cut",
        story="Texts are cut at a number of tokens in silence, and what decides stood behind it.",
        finding=REFUSED,
        remedy='data.long_text = "windows"',
        figure="accuracy",
        **_by_settings(
            sentiment,
            "accuracy",
            {"data.max_length": 24, "data.long_text": "error"},
            {"data.max_length": 24, "data.long_text": "windows"},
        ),
    ),
    Case(
        name="The column of the text is another one",
        story="A table without a header, and a number of a column that is off.",
        finding="inputs-alike",
        remedy='data.text = "text"',
        figure="spearman",
        **_by_settings(similarities, "spearman", {"data.text": "kind", "data.text_pair": None}),
    ),
    Case(
        name="The text tells the label",
        story="Validation is perfect within an epoch, and the model useless elsewhere.",
        finding="label-in-the-text",
        remedy="data.text without the label",
        figure="accuracy",
        lies=True,
        **_by_data(told_sentiment, sentiment, "accuracy"),
    ),
    Case(
        name="Validation rows were trained on",
        story="Figures rise with every epoch, and are not reached on new texts.",
        finding="validation-is-train",
        remedy="data.validation of other rows",
        figure="accuracy",
        lies=True,
        **_by_data(known_sentiment, little_sentiment, "accuracy"),
    ),
    Case(
        name="Two files name their labels differently",
        story="The loss falls; accuracy on validation falls with it, far below chance.",
        finding="labels-permuted",
        remedy='data.labels = ["neg", "pos"] for both',
        figure="accuracy",
        **_by_data(swapped_sentiment, sentiment, "accuracy"),
    ),
    Case(
        name="A sigmoid in front of a loss that has one",
        story="The loss hardly falls below 0.5, and answers stay near the middle.",
        finding="probabilities-as-logits",
        remedy="loss(logits, labels) without .sigmoid()",
        figure="loss",
        lower_is_better=True,
        **_in_loop(_REVIEWS, "sigmoid"),
    ),
    Case(
        name="Shapes that broadcast",
        story="A regression by mse_loss(logits, targets) gives the same number for every text.",
        finding="loss-broadcasts",
        remedy="logits.squeeze(-1)",
        figure=_SPREAD,
        **_in_loop(_PAIRS, "broadcast"),
    ),
    Case(
        name="Targets from 0 to 100",
        story="The same score for every text, near 0 at first and near the mean later.",
        finding="targets-not-scaled",
        remedy="(targets - targets.mean()) / targets.std()",
        figure=_SPREAD,
        **_in_loop(_PAIRS, "targets to 100"),
    ),
    Case(
        name="An ignore_index that is a class",
        story="The padding id, 0, given as ignore_index: class 0 is never learnt.",
        finding="class-is-ignored",
        remedy="cross_entropy(logits, labels), ignoring -100",
        figure="accuracy",
        **_in_loop(_QUESTIONS, "ignore class 0"),
    ),
    Case(
        name="Rows in the order of their labels",
        story="A loader without shuffle: each batch holds one class.",
        finding="labels-in-runs",
        remedy="DataLoader(…, shuffle=True)",
        figure="accuracy",
        **_in_loop(_QUESTIONS, "sorted"),
    ),
    Case(
        name="No zero_grad",
        story="The loss falls for some updates, then jumps and stays high.",
        finding="gradients-pile-up",
        remedy="optimizer.zero_grad()",
        figure="accuracy",
        **_in_loop(_QUESTIONS, "no zero_grad"),
    ),
    Case(
        name="The optimizer lacks the encoder",
        story="An optimizer of the head alone, or made before a part was put in its place.",
        finding="not-in-the-optimizer",
        remedy="AdamW(model.parameters())",
        figure="accuracy",
        **_in_loop(_QUESTIONS, "head only"),
    ),
    Case(
        name="Padding to a fixed length without a mask",
        story="Short texts are drowned in padding, and learn slowly.",
        finding="padding-is-seen",
        remedy="model(input_ids, attention_mask)",
        figure="accuracy",
        **_in_loop(_QUESTIONS, "no mask"),
    ),
    Case(
        name="Evaluation mode while training",
        story="model.eval() from the last evaluation stays on: dropout is off.",
        finding="dropout-is-off",
        remedy="model.train()",
        figure="accuracy",
        lies=True,
        **_in_loop(_QUESTIONS, "evaluation mode"),
    ),
    Case(
        name="Tags of padding count",
        story="Labels of words padded with 0: most of what is learnt is padding.",
        finding="padding-has-labels",
        remedy="labels of padding = -100",
        figure="labels that count in a batch",
        lower_is_better=True,
        **_in_loop(TagRun(figure="labels"), "padding counts"),
    ),
    Case(
        name="Tags of words given to tokens",
        story="A word of three tokens has one tag, and those behind it slide to the left.",
        finding="labels-on-special-tokens",
        remedy="labels by word_ids, -100 on [CLS] and [SEP]",
        figure="loss",
        lower_is_better=True,
        **_in_loop(TagRun(), "not aligned"),
    ),
    Case(
        name="The loss is NaN",
        story="A few updates, then NaN for ever.",
        finding="not-finite",
        remedy="a rate of 0.05",
        figure="updates whose loss is a number",
        failed=OverflowRun(rate=1e25),
        mended=OverflowRun(rate=0.05),
    ),
)

HARMLESS = (
    Harmless(
        name="Padding to a fixed length under a mask",
        advice="Padding to a fixed length makes every text get the same answer.",
        figure="accuracy",
        usual=_QUESTIONS,
        other=replace(_QUESTIONS, fault="fixed length"),
        margin=0.05,
    ),
    Harmless(
        name="Pairs without token types",
        advice="Without token_type_ids a network cannot tell the two texts of a pair apart.",
        figure=_SPREAD,
        usual=_PAIRS,
        other=replace(_PAIRS, fault="no types"),
        margin=0.1,
    ),
)

ALL: tuple[Case | Harmless, ...] = (*CASES, *HARMLESS)
