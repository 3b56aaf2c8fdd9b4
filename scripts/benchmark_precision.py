"""What vectors in fewer bytes cost: STS-B, how many of the nearest ten stay so, errors of cosines.

    python scripts/benchmark_precision.py --data FOLDER [--model NAME]

The table stands in docs/performance.md.
"""

import argparse
from pathlib import Path

import numpy as np
from benchmark import correlation, ranks
from benchmark_texts import judged_pairs

from minibert import Embedder
from minibert.precision import PRECISIONS, Vectors

# Of the query, or of the first of two sentences, and of what is kept.
CHOICES = (
    ("float32", "float32"),
    ("float32", "int8"),
    ("int8", "int8"),
    ("float32", "binary"),
    ("binary", "binary"),
)
NEAREST = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    args = parser.parse_args()
    pairs = judged_pairs(args.data)
    corpus = list(dict.fromkeys(pairs.second))
    place = {text: row for row, text in enumerate(corpus)}
    of_pair = (np.arange(len(pairs.first)), [place[text] for text in pairs.second])
    embedder = Embedder.from_pretrained(args.model)
    asked = {each: embedder.encode(pairs.first, precision=each) for each in PRECISIONS}
    kept = {each: embedder.encode(corpus, precision=each) for each in PRECISIONS}
    print(f"{len(pairs.first):,} pairs, {len(corpus):,} texts to find, {args.model}\n")
    print("| query | kept | bytes a vector | STS-B | of the nearest 10 |")
    print("| --- | --- | --- | --- | --- |")
    exact = None
    for query, precision in CHOICES:
        cosines = embedder.similarity(asked[query], kept[precision], dim=embedder.dim)
        spearman = correlation(ranks(cosines[of_pair]), ranks(np.array(pairs.scores)))
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
        exact = nearest if exact is None else exact
        n_found = sum(len(set(a) & set(b)) for a, b in zip(nearest, exact, strict=True))
        print(
            f"| {query} | {precision} | {kept[precision][0].nbytes:,} | {100 * spearman:.2f} "
            f"| {n_found / len(nearest):.2f} |"
        )
    off = embedder.similarity(asked["float32"], kept["float32"]) - embedder.similarity(
        asked["int8"], kept["int8"]
    )
    bound = largest_turn(asked["float32"]) + largest_turn(kept["float32"])
    print(f"\ncosines in int8: off by {np.abs(off).max():.4f}, by {bound:.4f} at most")


def largest_turn(vectors: Vectors) -> float:
    """The largest angle by which int8 may turn a vector; see `quantise_vectors`."""
    largest, lengths = np.abs(vectors).max(axis=1), np.linalg.norm(vectors, axis=1)
    return float(np.arcsin(vectors.shape[1] ** 0.5 * largest / (254 * lengths)).max())


if __name__ == "__main__":
    main()
