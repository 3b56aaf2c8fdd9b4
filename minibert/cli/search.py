"""`minibert search`: the texts of a file that are closest to a query."""

import json
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from minibert.cli.inputs import Bar, Reading, Source, input_options
from minibert.cli.models import LongText, ModelChoice, Settings, model_options, settings_options
from minibert.errors import DataError

if TYPE_CHECKING:
    import minibert.embed
    import minibert.vectors


class Hit(NamedTuple):
    """A text of the corpus, and how close it is to a query."""

    score: float
    line: int
    text: str


@click.command(short_help="Find the texts of a file closest to a query.")
@click.argument("queries", nargs=-1, required=True, metavar="QUERY…")
@click.option("--corpus", required=True, metavar="FILE|-", help="A file of texts to search.")
@input_options
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, metavar="N")
@click.option(
    "--vectors",
    "vectors_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The vectors of the corpus, from minibert embed, so that it is not embedded again.",
)
@click.option(
    "--trust-vectors",
    is_flag=True,
    help="Take --vectors as they are, though they are not known to be of this model and corpus.",
)
@model_options
@click.option(
    "--query-prompt",
    metavar="NAME|TEXT",
    help='Put before each query. Default: the model\'s prompt "query", else its default prompt.',
)
@click.option(
    "--prompt",
    metavar="NAME|TEXT",
    help="Put before each text of the corpus. Default: the model's default prompt, if any.",
)
@settings_options
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each text found.")
def search(
    queries: tuple[str, ...],
    corpus: str,
    format: str | None,
    field: str | None,
    top: int,
    vectors_path: Path | None,
    trust_vectors: bool,
    name: str,
    dtype: str,
    revision: str | None,
    sha256: str | None,
    offline: bool,
    query_prompt: str | None,
    prompt: str | None,
    truncate_dim: int | None,
    long_text: LongText,
    batch_tokens: int | None,
    as_json: bool,
) -> None:
    """Print the texts of a corpus closest to each QUERY: rank, cosine, line number, text.

    The corpus is a file as in minibert embed: a text a line, jsonl, csv or tsv. It may be of any
    size. Of texts with equal scores the earlier comes first.

    With --vectors, the corpus is only read for its texts. The file must have been made of this very
    corpus, with the same model and the same prompt, dtype and long-text as here. Its vectors may be
    of any --precision, the query stays float32: of binary ones it is compared with the signs.
    """
    from minibert.vectors import read_vectors

    source = Source(corpus, format, field)
    reading = source.read()
    given = None if vectors_path is None else read_vectors(vectors_path)
    choice = ModelChoice(name=name, dtype=dtype, revision=revision, sha256=sha256, offline=offline)
    embedder = choice.load()
    settings = Settings(
        prompt=prompt,
        normalize=None if given is None or given.origin is None else given.origin.normalised,
        truncate_dim=truncate_dim,
        precision="float32" if given is None else given.precision,
        long_text=long_text,
        batch_tokens=batch_tokens,
    )
    settings.check(embedder)
    if given is not None and not trust_vectors:
        _check_origin(given, settings.origin(embedder, choice))
    if query_prompt is None and "query" in embedder.recipe.prompts:
        query_prompt = "query"
    asked = Settings(
        prompt=query_prompt,
        truncate_dim=truncate_dim,
        long_text=long_text,
        batch_tokens=batch_tokens,
    ).encode(embedder, queries)
    if given is None:
        best = _search(embedder, settings, source, reading, asked, top)
    else:
        best = _search_vectors(source, reading, given, asked, top, trusted=trust_vectors)
    for number, (query, hits) in enumerate(zip(queries, best, strict=True)):
        if as_json:
            _print_json(query, hits)
        else:
            if len(queries) > 1:
                click.echo(f"{'' if number == 0 else chr(10)}{_one_line(query)}")
            _print_table(hits)


class Best:
    """The texts closest to each of some queries, among those shown to it so far."""

    def __init__(self, queries: Any, top: int) -> None:
        self._queries = _unit(queries)
        self._top = top
        self._hits: list[list[Hit]] = [[] for _ in queries]

    def add(self, vectors: Any, texts: list[Any]) -> None:
        """Show it the next texts and their vectors."""
        import numpy as np

        # In float64, so that a score does not depend on which texts it is computed beside.
        scores = (self._queries @ _unit(vectors).T).astype(np.float32)
        for hits, row in zip(self._hits, scores, strict=True):
            order = np.argsort(-row, kind="stable")[: self._top]
            found = [Hit(float(str(row[i])), texts[i].line, texts[i].text) for i in order]
            # Stable: what was there before is earlier in the corpus, so it comes first.
            hits[:] = sorted(hits + found, key=lambda hit: -hit.score)[: self._top]

    @property
    def hits(self) -> list[list[Hit]]:
        """For each query its hits, the closest first."""
        return self._hits


def _unit(vectors: Any) -> Any:
    """Each row divided by its length, in float64; a zero vector stays zero."""
    import numpy as np

    rows = np.asarray(vectors, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _search(
    embedder: "minibert.embed.Embedder",
    settings: Settings,
    source: Source,
    reading: Reading,
    asked: Any,
    top: int,
) -> list[list[Hit]]:
    from minibert.embed import CHUNK_TEXTS

    best = Best(asked, top)
    with Bar(source, reading, what="searching") as bar:
        for chunk in reading.chunks(CHUNK_TEXTS):
            best.add(settings.encode(embedder, [item.text for item in chunk]), chunk)
            bar.advance(len(chunk))
    return best.hits


def _search_vectors(
    source: Source,
    reading: Reading,
    given: "minibert.vectors.VectorFile",
    asked: Any,
    top: int,
    *,
    trusted: bool,
) -> list[list[Hit]]:
    from minibert.embed import CHUNK_TEXTS
    from minibert.precision import components, stored_width
    from minibert.vectors import NO_TEXTS, chain

    n_rows, width = given.vectors.shape
    dim = asked.shape[1]
    expected = stored_width(dim, given.vectors.dtype)
    if n_rows and width != expected:
        raise DataError(
            f"{given.path}: holds vectors of width {width}, expected {expected} as of the "
            "query; give --truncate-dim, or the model that made them"
        )
    if given.precision != "float32":
        click.echo(
            f"minibert: {given.path}: holds {given.precision} vectors; scores are their cosines "
            "with the query in float32",
            err=True,
        )
    best, done, digest = Best(asked, top), 0, NO_TEXTS
    with Bar(source, reading, what="searching") as bar:
        for chunk in reading.chunks(CHUNK_TEXTS):
            rows = given.vectors[done : done + len(chunk)]
            done += len(chunk)
            if len(rows) == len(chunk):
                best.add(components(rows, dim), chunk)
                digest = chain(digest, (item.text for item in chunk))
            bar.advance(len(chunk))
    if done != n_rows:
        raise DataError(
            f"{given.path}: holds {n_rows} vectors, but {source.path} {done} texts; embed this "
            "corpus again"
        )
    if not trusted and digest != given.texts_sha256:
        raise DataError(
            f"{given.path}: holds the vectors of other texts than those of {source.path}, or of "
            "the same in another order; embed this corpus again"
        )
    return best.hits


def _check_origin(given: "minibert.vectors.VectorFile", here: "minibert.vectors.Origin") -> None:
    from minibert.vectors import differences

    if given.origin is None:
        raise DataError(
            f"{given.path}: does not say which model made it ({given.path.name}.json is absent, or "
            "of another file); make it with minibert embed, or --trust-vectors if you know"
        )
    if told := differences(given.origin, here):
        raise DataError(
            f"{given.path}: holds vectors of another kind: {told}; search as they were made, or "
            "embed the corpus again"
        )


def _print_json(query: str, hits: list[Hit]) -> None:
    for rank, hit in enumerate(hits, 1):
        found = {"query": query, "rank": rank, **hit._asdict()}
        click.echo(json.dumps(found, ensure_ascii=False))


def _print_table(hits: list[Hit]) -> None:
    """Aligned columns; the text is cut only where a terminal would break the line."""
    ranks, lines = len(str(len(hits))), max((len(str(hit.line)) for hit in hits), default=0)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for rank, hit in enumerate(hits, 1):
        start = f"{rank:>{ranks}}  {hit.score:z7.4f}  {hit.line:>{lines}}  "
        text = _one_line(hit.text)
        click.echo(start + (text if width is None else _cut(text, width - len(start))))


def _one_line(text: str) -> str:
    """A text for a line of its own: runs of blanks and control characters become one blank."""
    blank = ("Cc", "Zl", "Zp")
    return " ".join("".join(" " if unicodedata.category(c) in blank else c for c in text).split())


def _cut(text: str, columns: int) -> str:
    """As much of a text as fits, with an ellipsis where that is not all."""
    used, fitting = 0, 0
    for index, character in enumerate(text):
        used += _columns(character)
        if used > columns:
            return text[:fitting] + "…"
        if used < columns:
            fitting = index + 1
    return text


def _columns(character: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
