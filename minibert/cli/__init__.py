"""The `minibert` command: a file a subcommand, loaded when it is asked for.

`--help` of everything answers at once, so what is slow to import (torch, tokenizers, numpy) is
imported inside the functions that need it, here and in the subcommands.
"""

import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

import minibert
from minibert.errors import MinibertError

_COMMANDS = (
    "fetch", "info", "kernels", "embed", "search", "similarity", "bench", "trace", "parity",
    "export", "init", "doctor", "tune", "train", "report", "evaluate", "classify", "score", "tag",
    "answer", "fill-mask",
)  # fmt: skip


class StoppedError(Exception):
    """The user stopped the command; the message says what can be gone on with."""


class _PipeClosedError(Exception):
    """Who read our output has gone: nothing to complain of."""


class _Commands(click.Group):
    """The subcommands by name, each imported when it is looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"minibert.cli.{name}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _PipeClosedError from None
        except KeyboardInterrupt:
            raise StoppedError("stopped") from None


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(minibert.__version__, message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Embed, search, train and predict with BERT, and look inside its checkpoints."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error.

    Returns: the exit status: 0, 2 for what cannot be done as asked, 130 when stopped, 1 when the
        reader of the output has gone.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack the letters of a text
            stream.reconfigure(errors="backslashreplace")
    given = None if args is None else list(args)
    try:
        code = commands.main(given, prog_name="minibert", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        return _refuse(_usage_line(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{where}{error.strerror or error}")
    except MinibertError as error:
        return _refuse(str(error))
    except (StoppedError, click.Abort) as error:
        _refuse(str(error) or "stopped")
        return 130
    except _PipeClosedError:
        return 1


def _refuse(line: str) -> int:
    click.echo(f"minibert: {' '.join(line.splitlines())}", err=True)
    return 2


def _usage_line(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context else ""
    return f"{error.format_message().rstrip('.')}{hint}"
