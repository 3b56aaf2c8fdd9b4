"""`minibert fetch`: a model of the manifest onto this machine."""

import click

from minibert.cli import StoppedError


@click.command(short_help="Bring a model onto this machine, checked by SHA-256.")
@click.argument("name")
def fetch(name: str) -> None:
    """Bring the model NAME into the cache, checked by SHA-256, and print its folder.

    Can be interrupted, run again and run twice at once. The folder is the last line of standard
    output, also when the model is there already. The cache is $MINIBERT_CACHE, or minibert in the
    user's cache folder.
    """
    from minibert import weights

    try:
        folder = weights.fetch(name)
    except KeyboardInterrupt:
        raise StoppedError(
            f"stopped; `minibert fetch {name}` goes on from what has arrived"
        ) from None
    click.echo(folder)
