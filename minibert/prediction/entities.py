"""The entities of a sequence of tags.

B-PER I-PER O B-LOC   ->   (PER, 0, 2) (LOC, 3, 4)
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from minibert.errors import LabelError

NO_TYPE = "_"  # of tags that are a letter alone, as seqeval has it


class Span(NamedTuple):
    label: str
    start: int
    stop: int  # the first position behind it


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The entities of one sequence, in any scheme, valid or not, in order.

    An entity ends before B-, S-, O or another type, and after E- or S-; any tag but O that goes on
    with nothing begins one.  So every tag but O is in exactly one entity.

    Source: seqeval's `get_entities` (its default mode), which follows conlleval.
    Differs: a tag that belongs to no scheme is refused; seqeval warns and reads something into it.

    >>> spans_of(["B-PER", "I-PER", "O", "I-LOC"])
    [Span(label='PER', start=0, stop=2), Span(label='LOC', start=3, stop=4)]
    """
    found: list[Span] = []
    before = ("O", "")
    for place, tag in enumerate(tags):
        prefix, label = _parsed(tag)
        if prefix in "IE" and before[0] in "BI" and before[1] == label:
            found[-1] = found[-1]._replace(stop=place + 1)
        elif prefix != "O":
            found.append(Span(label, place, place + 1))
        before = (prefix, label)
    return found


def is_tag(tag: str) -> bool:
    """Whether a label is a tag of a scheme: O, or B, I, E or S and, behind a hyphen, a type."""
    return tag == "O" or (tag[:1] in tuple("BIES") and tag[1:2] in ("", "-"))


def has_entities(labels: Sequence[str]) -> bool:
    """Whether labels are tags that entities can be read from, not those of another task."""
    return any(label != "O" for label in labels) and all(map(is_tag, labels))


@lru_cache(maxsize=4096)
def _parsed(tag: str) -> tuple[str, str]:
    if not is_tag(tag):
        raise LabelError(f"tag {tag!r} belongs to no scheme, expected O, or B-, I-, E-, S- + type")
    return tag[0], tag[2:] or NO_TYPE
