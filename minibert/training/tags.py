"""Schemes of word tags: which one a file is in, its mistakes mended, and one written as another.

    IOB1     I-PER I-PER B-PER O I-LOC     B- only where an entity touches one of its own type
    BIO      B-PER I-PER B-PER O B-LOC     B- begins each
    BIOES    B-PER E-PER S-PER O S-LOC     E- ends each, S- is one of one word
    BILOU    B-PER L-PER U-PER O U-LOC     the same, with L- for E- and U- for S-

Whatever scheme tags are in, and whether they break it or not, the lenient rule of `spans_of` reads
entities from them; they are then written down anew.  So nothing here changes an entity.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from minibert.errors import LabelError
from minibert.prediction.entities import Span, spans_of
from minibert.training.spans import Scheme, write_tags

TagScheme = Scheme | Literal["BILOU"]
SCHEMES: tuple[TagScheme, ...] = (*get_args(Scheme), "BILOU")

_PREFIXES = {"BIO": "BI", "IOB1": "BI", "BIOES": "BIES", "BILOU": "BILU"}
_TAG = re.compile(r"O|[BIESLU](-.*)?", re.DOTALL)
_TO_BIOES, _TO_BILOU = str.maketrans("LU", "ES"), str.maketrans("ES", "LU")


class Repaired(NamedTuple):
    tags: list[str]
    n_repaired: int


def detect(sequences: Iterable[Sequence[str]]) -> TagScheme | None:
    """The scheme that fewest tags of these sequences break, the first of `SCHEMES` of equals.

    None where no entity is tagged, or tags are no scheme's (NN, VB, …): a sequence with such a tag
    says nothing.

    >>> detect([["I-PER", "I-PER", "B-PER"], ["O", "I-LOC"]])
    'IOB1'
    """
    broken = dict.fromkeys(SCHEMES, 0)
    n_entities = 0
    for tags in sequences:
        if all(map(_TAG.fullmatch, tags)):
            spans = _read(tags)
            n_entities += len(spans)
            for scheme in SCHEMES:
                broken[scheme] += _n_broken(tags, spans, scheme)
    best = min(SCHEMES, key=lambda scheme: broken[scheme])
    return best if n_entities else None


def repair(tags: Sequence[str], scheme: TagScheme) -> Repaired:
    """Tags with the same entities that are valid in `scheme`, and how many were not.

    >>> repair(["O", "I-PER", "I-PER", "S-LOC"], "BIO")
    Repaired(tags=['O', 'B-PER', 'I-PER', 'B-LOC'], n_repaired=2)

    Raises: LabelError for a tag that is no scheme's.
    """
    return convert(tags, scheme, scheme)


def convert(tags: Sequence[str], source: TagScheme, target: TagScheme) -> Repaired:
    """The entities of tags in `source` as tags of `target`, and how many tags broke `source`.

    Raises: LabelError for a tag that is no scheme's, or a scheme that is not here.
    """
    for scheme in (source, target):
        if scheme not in SCHEMES:
            raise LabelError(f"scheme is {scheme!r}, expected one of {', '.join(SCHEMES)}")
    for place, tag in enumerate(tags):
        if not _TAG.fullmatch(tag):
            raise LabelError(
                f"tag {place + 1} is {tag!r}, expected O, or one of B-, I-, E-, S-, L-, U- and a "
                "type, as B-PER"
            )
    spans = _read(tags)
    return Repaired(_written(spans, len(tags), target), _n_broken(tags, spans, source))


def complete(names: Iterable[str], scheme: TagScheme) -> tuple[str, ...]:
    """O and all tags that a scheme has for the types of these, sorted.

    >>> complete(["B-PER", "O"], "BIOES")
    ('B-PER', 'E-PER', 'I-PER', 'O', 'S-PER')
    """
    types = {name[1:] for name in names if name != "O"}
    return tuple(sorted({"O", *(prefix + each for prefix in _PREFIXES[scheme] for each in types)}))


def _read(tags: Sequence[str]) -> list[Span]:
    return spans_of([tag[0].translate(_TO_BIOES) + tag[1:] for tag in tags])


def _written(spans: Sequence[Span], length: int, scheme: TagScheme) -> list[str]:
    if scheme == "BILOU":
        tags = write_tags(spans, length, "BIOES")
        return [tag[0].translate(_TO_BILOU) + tag[1:] for tag in tags]
    return write_tags(spans, length, scheme)


def _n_broken(tags: Sequence[str], spans: Sequence[Span], scheme: TagScheme) -> int:
    """How many tags have another prefix than the scheme has there."""
    right = _written(spans, len(tags), scheme)
    return sum(a[0] != b[0] for a, b in zip(tags, right, strict=True))
