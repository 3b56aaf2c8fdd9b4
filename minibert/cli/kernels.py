"""`minibert kernels`: the hand-written kernels, compiled for this CPU."""

import click

from minibert.errors import EngineError


@click.command(short_help="Compile the kernels that make embedding and prediction faster.")
def kernels() -> None:
    """Compile the hand-written kernels for this CPU, once, and say what they were compiled for.

    They are compiled by themselves when there is much to do.  Without a C++ compiler everything
    works without them, slower; MINIBERT_ENGINE=pytorch does without them too.
    """
    try:
        from minibert.engine import load_kernels
        from minibert.kernels.build import KernelsUnavailableError
        from minibert.kernels.panels import instructions_of
    except ImportError:
        raise EngineError("minibert.kernels is not installed; install minibert anew") from None

    try:
        library = load_kernels()
    except KernelsUnavailableError as error:
        raise EngineError(
            f"{error}; until then PyTorch computes, at about half the speed"
        ) from None
    # Of all that are used: those of 8-bit integers.
    click.echo(f"kernels for {instructions_of(library, 'int8')}: {library._name}")
