"""Every refusal of minibert: one line that says what, got, expected and how to mend it.

Wrong values raise a subclass of `MinibertError` (itself a `ValueError`); wrong types raise a plain
`TypeError`.  The command line prints the line of a `MinibertError` and exits with 2.
"""


class MinibertError(ValueError):
    """Input that minibert refuses; the message is one line, complete by itself."""


class ConfigError(MinibertError):
    """A `config.json` (or a configuration made in Python) that is not a BERT encoder's."""


class CheckpointError(MinibertError):
    """A checkpoint file that is torn, foreign, or does not fit the model."""


class WeightsError(MinibertError):
    """A model name that leads to no verified folder: unknown, unreachable, or wrong SHA-256."""


class TokenizerError(MinibertError):
    """Tokenizer files that do not fit, or a length that leaves no room for text."""


class TextError(MinibertError):
    """A text that cannot be embedded as asked: lone surrogates, or longer than allowed."""


class EngineError(MinibertError):
    """A way to compute that was asked for, and is not to be had here."""


class DataError(MinibertError):
    """A file of texts, rows or vectors that cannot be read or written as asked."""


class LabelError(MinibertError):
    """Labels that do not fit what the model gives: their shape, dtype or range."""


class ParityError(MinibertError):
    """A trace, pack or comparison that cannot be made as asked."""


class ExportError(MinibertError):
    """A network that cannot be exported as asked, or whose export gives other numbers."""


class RunError(MinibertError):
    """A run file, or settings of a training run, that cannot be followed; the key is named."""


class TrainingError(MinibertError):
    """A training run that cannot be made, or go on, as asked."""


def in_one_line(error: Exception) -> str:
    """Its kind and its message, for a line that says what went on without it.

    >>> in_one_line(OSError("no\\nroom"))
    'OSError: no room'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())
