"""The options that choose a model and how it embeds, shared by the subcommands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    import minibert.embed
    import minibert.precision
    import minibert.vectors

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DTYPE = click.Choice(["float32", "bfloat16", "float16", "float64"])  # those of `checkpoint`
NARROW_DTYPE = click.Choice([*DTYPE.choices, "int16", "int8"])  # and of a predictor
ANY_DTYPE = click.Choice([*NARROW_DTYPE.choices, "bfloat16x3"])  # and of an `Embedder`

LongText = Literal["truncate", "windows", "error"]  # that of `embed`, which is slow to import
Precision = Literal["float32", "int8", "binary"]  # that of `precision`, likewise
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which weights to load, and how."""

    name: str
    dtype: str
    revision: str | None
    sha256: str | None
    offline: bool

    def load(self) -> "minibert.embed.Embedder":
        """The embedder; imports torch, which takes a second or two."""
        from minibert.embed import Embedder

        return Embedder.from_pretrained(
            self.name,
            dtype=self.dtype,
            revision=self.revision,
            sha256=self.sha256,
            offline=self.offline,
        )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides a vector beside the model; the arguments of `Embedder.encode`."""

    prompt: str | None = None
    normalize: bool | None = None
    truncate_dim: int | None = None
    precision: Precision = "float32"
    long_text: LongText = "truncate"
    batch_tokens: int | None = None

    def check(self, embedder: "minibert.embed.Embedder") -> None:
        """Refuse what this embedder cannot do."""
        if self.truncate_dim is not None and self.truncate_dim > embedder.dim:
            raise click.UsageError(
                f"--truncate-dim is {self.truncate_dim}, expected at most {embedder.dim}, the "
                "width of the model's vectors"
            )

    def encode(
        self, embedder: "minibert.embed.Embedder", texts: Sequence[str]
    ) -> "minibert.precision.Vectors":
        """The vectors of a list of texts, without a bar of their own."""
        return embedder.encode(
            list(texts),
            prompt=self.prompt,
            normalize_embeddings=self.normalize,
            truncate_dim=self.truncate_dim,
            precision=self.precision,
            long_text=self.long_text,
            batch_tokens=self.batch_tokens,
            show_progress_bar=False,
        )

    def origin(
        self, embedder: "minibert.embed.Embedder", choice: ModelChoice
    ) -> "minibert.vectors.Origin":
        """What is to be said of vectors made so."""
        from minibert.vectors import Origin

        normalised = embedder.recipe.normalise if self.normalize is None else self.normalize
        return Origin(
            fingerprint=embedder.fingerprint_of(
                prompt=self.prompt,
                normalize_embeddings=self.normalize,
                truncate_dim=self.truncate_dim,
                long_text=self.long_text,
            ),
            model=choice.name,
            dim=self.truncate_dim or embedder.dim,
            dtype=choice.dtype,
            precision=self.precision,
            prompt=embedder.prompt_text(self.prompt),
            normalised=normalised,
            long_text=self.long_text,
        )


def model_options(command: _Command) -> _Command:
    """Add --model and what loads it: name, dtype, revision, sha256, offline."""
    return _with(
        command,
        click.option(
            "--model",
            "name",
            default=DEFAULT_MODEL,
            show_default=True,
            metavar="NAME",
            help="A name of the manifest, a folder, or a hub id OWNER/NAME.",
        ),
        loading_options,
    )


def loading_options(command: _Command) -> _Command:
    """Add what loads a model beside its name: dtype, revision, sha256, offline."""
    return _with(
        command,
        click.option(
            "--dtype",
            type=ANY_DTYPE,
            default="float32",
            show_default=True,
            help="Of the computation; int16 and int8 are faster; bfloat16x3 is for CPUs with AMX.",
        ),
        click.option("--revision", metavar="COMMIT", help="Of a hub id."),
        click.option("--sha256", metavar="HEX", help="What model.safetensors must hash to."),
        click.option("--offline", is_flag=True, help="Open no connection."),
    )


def settings_options(command: _Command) -> _Command:
    """Add what embeds differently: truncate_dim, long_text, batch_tokens."""
    return _with(
        command,
        click.option(
            "--truncate-dim",
            type=click.IntRange(min=1),
            metavar="N",
            help="Keep the first N components, for models trained so that these suffice.",
        ),
        click.option(
            "--long-text",
            type=click.Choice(["truncate", "windows", "error"]),
            default="truncate",
            show_default=True,
            help="Texts longer than the model takes: cut them, take the mean of overlapping "
            "windows, or refuse them.",
        ),
        click.option(
            "--batch-tokens",
            type=click.IntRange(min=1),
            metavar="N",
            help="Tokens computed at once.",
        ),
    )


def _with(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    """The command with options, in the order in which its help is to list them."""
    for option in reversed(options):
        command = option(command)
    return command
