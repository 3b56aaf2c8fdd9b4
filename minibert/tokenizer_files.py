"""The files of a tokenizer: read, checked, and made into a backend of the `tokenizers` package."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from minibert.errors import TokenizerError

# The special tokens by what they are for, as BERT calls them.
NAMES = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
# Beyond this, model_max_length is the 1e30 that `transformers` writes for "not known".
_ABSURD_LENGTH = 1_000_000
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}") from None


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one."""
    try:
        found = json.loads(_read_text(path)) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise TokenizerError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise TokenizerError(f"{path} holds a {type(found).__name__}, expected a JSON object")
    return found


def read_config(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return tokenizer_config.json, and the special tokens' names by role."""
    path = folder / "tokenizer_config.json"
    config = _read_object(path)
    if config.get("truncation_side", "right") != "right":
        raise TokenizerError(
            f"{path}: truncation_side is {config['truncation_side']!r}, expected right"
        )
    stated, names = config, dict(NAMES)
    if "added_tokens_decoder" not in config:
        stated = config | _read_object(folder / "special_tokens_map.json")
    for role in NAMES:
        name = stated.get(f"{role}_token") or NAMES[role]
        name = name.get("content") if isinstance(name, dict) else name
        if not isinstance(name, str):
            raise TokenizerError(f"{path}: {role}_token is {name!r}, expected a string")
        names[role] = name
    return config, names


def stated_length(config: Mapping[str, Any]) -> int | None:
    """The model_max_length of a tokenizer_config.json; None where it does not say one."""
    match config.get("model_max_length"):
        case int() | float() as length if 0 < length <= _ABSURD_LENGTH:
            return int(length)
    return None


def read_backend(path: Path) -> tokenizers.Tokenizer:
    """The backend that a tokenizer.json describes."""
    text = _read_text(path)
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the backend raises plain Exception
        raise TokenizerError(f"{path} is not a tokenizer.json: {error}") from None


def build_backend(path: Path, unk_token: str, max_input_chars: int) -> tokenizers.Tokenizer:
    """WordPiece over a vocab.txt: one token a line, whose number is the id."""
    # Not splitlines, which would also cut at U+2028 and the like, and these are tokens.
    lines = _read_text(path).removesuffix("\n").split("\n")
    vocab = {token: i for i, token in enumerate(lines)}
    model = models.WordPiece(vocab, unk_token=unk_token, max_input_chars_per_word=max_input_chars)
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def configure(backend: tokenizers.Tokenizer, config: Mapping[str, Any], folder: Path) -> None:
    """Let tokenizer_config.json overrule the normaliser in what it states."""
    normalizer = backend.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return
    fields = {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    }
    for key, field in fields.items():
        if key not in config:
            continue
        value = config[key]
        if not isinstance(value, bool) and not (value is None and key == "strip_accents"):
            raise TokenizerError(
                f"{folder / 'tokenizer_config.json'}: {key} is {value!r}, expected true or false"
            )
        setattr(normalizer, field, value)
    backend.normalizer = normalizer


def add_tokens(
    backend: tokenizers.Tokenizer, folder: Path, names: Mapping[str, str], *, stated: object
) -> None:
    """Add what added_tokens_decoder states, or else added_tokens.json, after the vocabulary."""
    path = folder / ("added_tokens.json" if stated is None else "tokenizer_config.json")
    tokens: list[tuple[int, tokenizers.AddedToken]] = []
    try:
        if isinstance(stated, dict):
            for i, fields in stated.items():
                flags = {flag: bool(fields[flag]) for flag in _FLAGS if flag in fields}
                tokens.append((int(i), tokenizers.AddedToken(fields["content"], **flags)))
        else:
            for text, i in _read_object(path).items():
                special = text in names.values()
                token = tokenizers.AddedToken(text, special=special, normalized=not special)
                tokens.append((int(i), token))
    except (TypeError, ValueError, LookupError) as error:
        raise TokenizerError(f"{path}: an added token is not as expected: {error!r}") from None
    vocab = backend.get_vocab()
    free = 1 + max(vocab.values(), default=-1)
    for i, token in sorted(tokens, key=lambda pair: pair[0]):
        expected = vocab.get(token.content, free)
        if i != expected:
            raise TokenizerError(
                f"{path}: token {token.content!r} has id {i}, expected {expected}: the ids of "
                "added tokens go on where those of vocab.txt end"
            )
        backend.add_tokens([token])
        # It counts on from the number of tokens, which repeated lines make too small.
        if (given := backend.token_to_id(token.content)) != i:
            raise TokenizerError(
                f"{path}: token {token.content!r} has id {i}, but the backend gives it {given}: "
                "remove the repeated lines of vocab.txt"
            )
        free = max(free, i + 1)


def find_special_ids(backend: tokenizers.Tokenizer, names: Mapping[str, str]) -> tuple[int, ...]:
    """The ids of the special tokens, in the order of `names`, of a backend that is WordPiece."""
    model = backend.model
    if not isinstance(model, models.WordPiece):
        raise TokenizerError(f"the tokenizer's model is {type(model).__name__}, expected WordPiece")
    ids = {role: backend.token_to_id(names[role]) for role in NAMES}
    absent = [names[role] for role, i in ids.items() if i is None]
    if absent:
        raise TokenizerError(
            f"the vocabulary lacks {', '.join(absent)}, expected all of {', '.join(names.values())}"
        )
    if model.unk_token != names["unk"]:
        raise TokenizerError(
            f"the unknown token of WordPiece is {model.unk_token!r}, expected {names['unk']!r}"
        )
    return tuple(i for i in ids.values() if i is not None)


def check_post_processor(backend: tokenizers.Tokenizer, cls_id: int, sep_id: int) -> None:
    """Refuse a backend that puts anything around texts but BERT's special tokens and types."""
    if backend.post_processor is None:
        return
    text = backend.encode("a", add_special_tokens=False).ids
    one, two = backend.encode("a"), backend.encode("a", "a")
    n = len(text) + 1
    if (
        one.ids != [cls_id, *text, sep_id]
        or two.ids != [cls_id, *text, sep_id, *text, sep_id]
        or one.type_ids != [0] * (n + 1)
        or two.type_ids != [0] * (n + 1) + [1] * n
    ):
        raise TokenizerError(
            "the post-processor gives something else than [CLS] A [SEP] and [CLS] A [SEP] B [SEP] "
            f"with types 0 and 1: {one.tokens} {two.tokens} {two.type_ids}"
        )
