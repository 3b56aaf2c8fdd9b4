"""`minibert bench`: how fast a model embeds here, beside what the machine could do."""

import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from minibert.cli.inputs import Source, input_options
from minibert.cli.models import DEFAULT_MODEL, ModelChoice, loading_options
from minibert.columns import aligned
from minibert.errors import DataError

if TYPE_CHECKING:
    import minibert.embed
    import minibert.tokenizer

SYNTHETIC_TEXTS = 512
# Words of a synthetic text: lognormal, 23 in the mean, as long as the sentences of a web page.
MEAN_WORDS, SPREAD = 23, 0.6
QUERY_WORDS = 8
N_QUERIES = 200


@click.command(short_help="Measure how fast a model embeds here.")
@click.argument("name", metavar="[MODEL]", default=DEFAULT_MODEL)
@click.option(
    "--texts", "source", metavar="FILE|-", help="A file of texts; without it, made-up ones."
)
@input_options
@loading_options
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long to measure; three rounds are made whatever they take.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def bench(
    name: str,
    source: str | None,
    format: str | None,
    field: str | None,
    dtype: str,
    revision: str | None,
    sha256: str | None,
    offline: bool,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure how fast MODEL embeds texts here: a folder, a name of the manifest, or a hub id.

    \b
    speed        texts and tokens a second, tokenising included; the median of the rounds
    arithmetic   matrix products of the tokens that have to be computed (equal texts are computed
                 once), and their share of the rate at which this machine multiplies matrices of
                 the same shapes and dtype, measured in turn with the texts
    one query    milliseconds of one text of eight words: half of the calls take at most p50, 99
                 of 100 at most p99
    memory       of the process, at its peak

    It computes on as many threads as PyTorch takes; OMP_NUM_THREADS sets another number.
    """
    if source is None and (format is not None or field is not None):
        raise click.UsageError("--format and --field are for a file, given with --texts")
    texts = None
    if source is not None:
        texts = [item.text for item in Source(source, format, field).read()]
        if not texts:
            raise DataError(f"{source}: holds no text, expected at least one to measure with")
    choice = ModelChoice(name=name, dtype=dtype, revision=revision, sha256=sha256, offline=offline)
    embedder = choice.load()
    texts = synthetic_texts(embedder.tokenizer, SYNTHETIC_TEXTS) if texts is None else texts
    found = measure(embedder, texts, dtype=dtype, seconds=seconds)
    if as_json:
        click.echo(json.dumps({"model": name, **asdict(found)}, ensure_ascii=False, indent=1))
    else:
        click.echo("\n".join(aligned(_told(name, found))))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a model did on this machine."""

    machine: str
    threads: int
    dtype: str
    n_texts: int
    n_distinct: int
    n_tokens: int  # of the distinct texts
    round_seconds: tuple[float, ...]
    flops: int  # of a round's matrix products
    limits: tuple[float, ...]  # FLOP/s of matrix products alone, one a round
    query_p50_seconds: float
    query_p99_seconds: float
    peak_bytes: int

    @property
    def seconds(self) -> float:
        return statistics.median(self.round_seconds)

    @property
    def limit_fraction(self) -> float:
        """The median of the rounds' shares of the rate that was measured beside them."""
        pairs = zip(self.round_seconds, self.limits, strict=True)
        return statistics.median(self.flops / seconds / limit for seconds, limit in pairs)


def synthetic_texts(
    tokenizer: "minibert.tokenizer.Tokenizer", n_texts: int, *, seed: int = 0
) -> list[str]:
    """Texts of words of the vocabulary, as long as sentences are, always the same ones."""
    draw = random.Random(seed)
    vocabulary = map(tokenizer.id_to_token, range(tokenizer.vocab_size))
    words = [word for word in vocabulary if word and word.isalpha()]
    if not words:
        raise DataError("the vocabulary holds no word of letters; give a file with --texts")
    # The mean of a lognormal distribution is exp(mu + sigma²/2).
    lengths = [
        max(1, round(MEAN_WORDS * draw.lognormvariate(-SPREAD * SPREAD / 2, SPREAD)))
        for _ in range(n_texts)
    ]
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


def measure(
    embedder: "minibert.embed.Embedder", texts: Sequence[str], *, dtype: str, seconds: float
) -> Measured:
    """Embed all texts again and again, the limit of the machine measured before each time."""
    import torch

    from minibert.machine import (
        distinct_lengths,
        matrix_flops,
        matrix_rate,
        peak_bytes,
        this_machine,
    )

    config = embedder.model.config
    lengths = distinct_lengths(embedder.tokenizer.ids(texts), embedder.recipe.max_length)
    embedder.encode(texts, show_progress_bar=False)  # warms up
    limits: list[float] = []
    rounds: list[float] = []
    end = time.perf_counter() + seconds
    while len(rounds) < 3 or time.perf_counter() < end:
        limits.append(matrix_rate(config, dtype))
        start = time.perf_counter()
        embedder.encode(texts, show_progress_bar=False)
        rounds.append(time.perf_counter() - start)
    queries = _query_seconds(embedder, _query(texts))
    return Measured(
        machine=str(this_machine()),
        threads=torch.get_num_threads(),
        dtype=dtype,
        n_texts=len(texts),
        n_distinct=len(lengths),
        n_tokens=sum(lengths),
        round_seconds=tuple(rounds),
        flops=matrix_flops(config, lengths),
        limits=tuple(limits),
        query_p50_seconds=statistics.median(queries),
        query_p99_seconds=statistics.quantiles(queries, n=100, method="inclusive")[98],
        peak_bytes=peak_bytes(),
    )


def _query(texts: Sequence[str]) -> str:
    """Words of the texts, as many as a question has."""
    words: list[str] = []
    for text in texts:
        words += text.split()
        if len(words) >= QUERY_WORDS:
            break
    return " ".join(words[:QUERY_WORDS])


def _query_seconds(embedder: "minibert.embed.Embedder", query: str) -> list[float]:
    found = []
    for _ in range(N_QUERIES):
        start = time.perf_counter()
        embedder.encode(query)
        found.append(time.perf_counter() - start)
    return found


def _told(name: str, found: Measured) -> list[tuple[str, str]]:
    """A line for each subject."""
    rates = [found.n_texts / seconds for seconds in found.round_seconds]
    flop_rate, limit = found.flops / found.seconds, statistics.median(found.limits)
    return [
        ("machine", f"{found.machine}; {found.threads} threads"),
        ("model", f"{name}, {found.dtype}"),
        (
            "texts",
            f"{found.n_texts:,}, of them {found.n_distinct:,} distinct, of {found.n_tokens:,} "
            "tokens",
        ),
        (
            "speed",
            f"{found.n_texts / found.seconds:,.0f} texts/s, "
            f"{found.n_tokens / found.seconds:,.0f} tokens/s (median of {len(rates)} rounds; "
            f"{min(rates):,.0f} to {max(rates):,.0f} texts/s)",
        ),
        (
            "arithmetic",
            f"{flop_rate / 1e9:,.3g} GFLOP/s, {found.limit_fraction:.0%} of what matrix products "
            f"alone reach here in {found.dtype}, {limit / 1e9:,.3g} GFLOP/s",
        ),
        (
            "one query",
            f"p50 {found.query_p50_seconds * 1e3:.2f} ms, p99 "
            f"{found.query_p99_seconds * 1e3:.2f} ms",
        ),
        ("memory", f"{found.peak_bytes / 1e6:,.0f} MB at its peak"),
    ]
