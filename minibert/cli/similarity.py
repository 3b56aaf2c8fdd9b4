"""`minibert similarity`: how alike texts are."""

import json

import click

from minibert.cli.models import LongText, ModelChoice, Settings, model_options, settings_options


@click.command(short_help="Print how alike texts are.")
@click.argument("text")
@click.argument("others", nargs=-1, required=True, metavar="TEXT…")
@model_options
@click.option("--prompt", metavar="NAME|TEXT", help="Put before each text; see minibert embed.")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each comparison.")
def similarity(
    text: str,
    others: tuple[str, ...],
    name: str,
    dtype: str,
    revision: str | None,
    sha256: str | None,
    offline: bool,
    prompt: str | None,
    truncate_dim: int | None,
    long_text: LongText,
    batch_tokens: int | None,
    as_json: bool,
) -> None:
    """The cosine of the first TEXT with each of the others, from -1 to 1.

    Of two texts it prints the number alone, of more a line each: number, tab, text.
    """
    choice = ModelChoice(name=name, dtype=dtype, revision=revision, sha256=sha256, offline=offline)
    settings = Settings(
        prompt=prompt, truncate_dim=truncate_dim, long_text=long_text, batch_tokens=batch_tokens
    )
    embedder = choice.load()
    settings.check(embedder)
    vectors = settings.encode(embedder, [text, *others])
    scores = [float(str(score)) for score in embedder.similarity(vectors[0], vectors[1:])[0]]
    for other, score in zip(others, scores, strict=True):
        if as_json:
            line = json.dumps({"text": text, "other": other, "score": score}, ensure_ascii=False)
        elif len(others) == 1:
            line = f"{score:z.4f}"
        else:
            line = f"{score:z.4f}\t{other}"
        click.echo(line)
