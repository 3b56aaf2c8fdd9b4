"""Entity spans as tags, and their precision, recall and F1.

    (PER, 0, 2) (LOC, 3, 4)   ->   B-PER I-PER O B-LOC

Three schemes are written: BIO (every entity begins with B-), IOB1 (only one that touches another
of its own type does, as in the files of CoNLL 2003) and BIOES (E- at the end, S- for one word
alone; also called IOBES).  They are all read by one lenient rule, so that what a network predicts
needs to be valid in none of them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from minibert.errors import LabelError
from minibert.prediction.entities import NO_TYPE, Span, is_tag, spans_of

Scheme = Literal["BIO", "IOB1", "BIOES"]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many spans were right, predicted and wanted; an empty denominator gives 0."""

    n_right: int
    n_predicted: int
    n_target: int

    @property
    def precision(self) -> float:
        return self.n_right / self.n_predicted if self.n_predicted else 0.0

    @property
    def recall(self) -> float:
        return self.n_right / self.n_target if self.n_target else 0.0

    @property
    def f1(self) -> float:
        both = self.n_predicted + self.n_target
        return 2 * self.n_right / both if both else 0.0


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Counts over all spans (their figures are the micro averages), and by type, sorted."""

    total: Counts
    by_type: dict[str, Counts]


def write_tags(spans: Iterable[Span], length: int, scheme: Scheme = "BIO") -> list[str]:
    """The tags of a sequence of `length` that holds these spans: the inverse of `spans_of`.

    Raises: LabelError where a span is empty, leaves the sequence, or overlaps the one before it.
    """
    _check_scheme(scheme)
    tags = ["O"] * length
    before = Span("", 0, 0)
    for span in sorted(spans, key=lambda span: span.start):
        label, start, stop = span
        if not before.stop <= start < stop <= length:
            raise LabelError(
                f"{span} does not fit behind {before} into {length} tags; entities cannot overlap"
            )
        touches = before.label == label and before.stop == start
        tags[start:stop] = [_tag("I", label)] * (stop - start)
        if scheme != "IOB1" or touches:
            tags[start] = _tag("B", label)
        if scheme == "BIOES":
            tags[stop - 1] = _tag("S" if stop - start == 1 else "E", label)
        before = span
    return tags


def scheme_of(names: Iterable[str]) -> Scheme | None:
    """The scheme that these names of tags belong to; None where they are no scheme's (NN, VB, …).

    Names alone cannot tell BIO from IOB1, which have the same: those with B- are taken for BIO.

    Raises: LabelError where some of the names are a scheme's and others are not, or O is the only
    one.
    """
    found = list(dict.fromkeys(names))
    strange = [name for name in found if not is_tag(name)]
    letters = {name[0] for name in found if name not in strange} - {"O"}
    if strange and not letters:
        return None
    if strange:
        raise LabelError(
            f"{strange[0]!r} stands among tags as {found[0]!r}, expected O, B-, I-, E- or S- and a "
            "type; rename it, or give its tokens the label -100"
        )
    if not letters:
        raise LabelError(f"the names of the tags are {found}, expected one of an entity at least")
    if letters & {"E", "S"}:
        return "BIOES"
    return "BIO" if "B" in letters else "IOB1"


def span_scores(predicted: Sequence[Sequence[str]], targets: Sequence[Sequence[str]]) -> SpanScores:
    """Compare the entities of sequences: right is one with the type, start and stop of a target.

    Raises: LabelError where the two do not have the same shape.
    """
    if len(predicted) != len(targets):
        raise LabelError(
            f"{len(predicted)} predicted sequences stand against {len(targets)} targets, expected "
            "as many"
        )
    right: Counter[str] = Counter()
    guessed: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for row, (ours, theirs) in enumerate(zip(predicted, targets, strict=True)):
        if len(ours) != len(theirs):
            raise LabelError(
                f"predicted[{row}] has {len(ours)} tags, expected {len(theirs)} as targets[{row}]"
            )
        a, b = spans_of(ours), spans_of(theirs)
        guessed.update(span.label for span in a)
        wanted.update(span.label for span in b)
        right.update(span.label for span in set(a) & set(b))
    by_type = {
        label: Counts(right[label], guessed[label], wanted[label])
        for label in sorted(guessed | wanted)
    }
    return SpanScores(Counts(right.total(), guessed.total(), wanted.total()), by_type)


def _tag(prefix: str, label: str) -> str:
    return prefix if label == NO_TYPE else f"{prefix}-{label}"


def _check_scheme(scheme: str) -> None:
    if scheme not in get_args(Scheme):
        raise LabelError(f"scheme is {scheme!r}, expected one of {', '.join(get_args(Scheme))}")
