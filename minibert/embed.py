"""Texts in, vectors out: the `Embedder`.

texts -> token ids -> windows where a text is long -> those that differ, sorted by length into
batches of a token budget -> packed, without padding -> encoder -> pooled -> windows merged ->
dense -> normalised -> float32, or quantised, in the order of the texts
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from minibert import tensor_files
from minibert.checkpoint import hash_tensors, load, save_tensors
from minibert.config import BertConfig
from minibert.engine_choice import EngineChoice, Engines, chosen_engine
from minibert.errors import CheckpointError, TextError
from minibert.layout import Packed
from minibert.model import BertModel
from minibert.pooling import normalise, pool, truncate
from minibert.precision import (
    Precision,
    Vectors,
    check_precision,
    common_dim,
    components,
    quantise_vectors,
)
from minibert.recipe import DenseStep, Recipe, read_recipe, write_recipe
from minibert.tokenizer import Tokenizer, checked_texts, window_spans
from minibert.weights import resolve

if TYPE_CHECKING:
    from tqdm import tqdm

    from minibert.engine_choice import AnyEngine

LongText = Literal["truncate", "windows", "error"]
Tokens = tuple[int, ...]

# Raised whenever the same weights and text give vectors that differ by more than rounding.
NUMERICS_VERSION = 1

# Tokens computed at once. Few enough for the activations of a layer to stay near the cache, enough
# to keep the matrix products large: between 512 and 4,096 the speed differs by a tenth.
BATCH_TOKENS = 1024

# Tokens that the kernels get at once: as many as show progress, and hold little memory.
KERNEL_TOKENS = 32_768

# Texts that `stream` takes at once. Sorting them by length is what makes batches even.
CHUNK_TEXTS = 4096

_ACTIVATIONS = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


class Embedder:
    """A BERT, its tokenizer and its recipe: turns texts into vectors.

    One embedder serves any number of threads, each getting what it would get alone.  A process
    forked after loading works too; it computes on one thread, for the threads of its parent do not
    survive the fork.

    >>> embedder = Embedder.from_pretrained("all-MiniLM-L6-v2")
    >>> embedder.encode(["a text", "another"]).shape
    (2, 384)
    """

    def __init__(
        self,
        model: BertModel,
        tokenizer: Tokenizer,
        recipe: Recipe,
        *,
        dense: Sequence[nn.Linear] = (),
        folder: Path | None = None,
        engine: EngineChoice = "pytorch",
        reproducible: bool = False,
        bfloat16x3: bool = False,
    ) -> None:
        tokenizer.check_embeddings(model.config.vocab_size, folder or "the tokenizer")
        self.model = model.eval()
        self.tokenizer = tokenizer.lowercased() if recipe.lowercase else tokenizer
        self.recipe = recipe
        self.folder = folder
        self.dense = tuple(dense)
        self._engines = Engines(
            self.model, engine, reproducible=reproducible, bfloat16x3=bfloat16x3
        )
        stay_alive_after_fork()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        engine: EngineChoice | None = None,
        reproducible: bool = False,
        revision: str | None = None,
        sha256: str | None = None,
        offline: bool = False,
    ) -> "Embedder":
        """The embedder of a sentence-transformers folder, or of a plain BERT folder.

        Args:
            name: a folder, a name of the manifest, or a hub id "owner/name".
            dtype: of the computation: "float32", "bfloat16", "float16" or "float64"; "int16" and
                "int8" are faster on a CPU, what they cost is told in docs/performance.md;
                "bfloat16x3" is for a CPU with AMX, where no component is off by 1e-5; elsewhere
                it is float32, as `computes` then says.
            device: where it runs.
            engine: "kernels", which are compiled when they are first needed; "pytorch"; or "auto",
                the kernels where they are at hand and there is enough to do. None takes
                $MINIBERT_ENGINE, else "auto".
            reproducible: make a text's vector the same to the last bit whatever it is embedded
                with. The kernels do that anyway; without them texts are computed one by one.
            revision: the commit of a hub id.
            sha256: the expected SHA-256 of `model.safetensors`.
            offline: open no connection.

        Raises: WeightsError, ConfigError, CheckpointError, TokenizerError or EngineError, in one
            line.
        """
        folder = resolve(name, revision=revision, sha256=sha256, offline=offline)
        config = BertConfig.from_file(folder / "config.json")
        tokenizer = Tokenizer.from_pretrained(folder)
        recipe = read_recipe(folder, config, tokenizer.model_max_length)
        bfloat16x3 = dtype == "bfloat16x3"  # a way of computing, of weights that stay float32
        stored_as = "float32" if bfloat16x3 else dtype
        model = load(BertModel, folder, config, dtype=stored_as, device=device)
        dense = [_load_dense(step, model) for step in recipe.dense]
        return cls(
            model,
            tokenizer,
            recipe,
            dense=dense,
            folder=folder,
            engine=chosen_engine(engine),
            reproducible=reproducible,
            bfloat16x3=bfloat16x3,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model, tokenizer and recipe as a folder that sentence-transformers opens, and we.

        Raises: CheckpointError when the folder cannot be written to.
        """
        self.model.save_pretrained(folder)
        self.save_companions(folder)

    def save_companions(self, folder: str | Path) -> None:
        """Write all but the encoder itself: tokenizer, recipe, weights of dense modules.

        Raises: CheckpointError when the folder cannot be written to.
        """
        folder = Path(folder)
        self.tokenizer.save_pretrained(folder)
        places = write_recipe(self.recipe, folder, hidden_size=self.model.config.hidden_size)
        for place, linear in zip(places, self.dense, strict=True):
            tensors = {f"linear.{name}": p.detach() for name, p in linear.named_parameters()}
            save_tensors(tensors, place / "model.safetensors")

    @property
    def dim(self) -> int:
        """The width of a vector."""
        if self.recipe.dense:
            return self.recipe.dense[-1].out_features
        return self.model.config.hidden_size * len(self.recipe.pooling)

    def settle(self, n_texts: int | None) -> bool:
        """Decide what computes a job of so many texts, None for very many; `stream` does so too.

        With engine "auto" the kernels are compiled for a long job only, and what is decided here
        stays: a job that is stopped and goes on elsewhere would else change in its last bits.

        Returns: whether the kernels do it.
        """
        return self._engines.settle_for_texts(n_texts)

    @property
    def computes(self) -> str:
        """What computed the last vectors, such as "float32 by kernels for AVX-512 VNNI"."""
        return self._engines.description

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides a vector; vectors of one fingerprint may be compared.

        It covers weights, tokenizer, recipe, prompts, dtype of the weights and `NUMERICS_VERSION`.
        """
        digest = hashlib.sha256()
        facts = {
            "recipe": self.recipe.to_dict(),
            "config": self.model.config.to_dict(),
            "tokenizer": self.tokenizer.to_json(),
            "numerics": NUMERICS_VERSION,
        }
        digest.update(json.dumps(facts, sort_keys=True).encode())
        for module in (self.model, *self.dense):
            hash_tensors(digest, module.state_dict())
        return digest.hexdigest()

    def fingerprint_of(
        self,
        *,
        prompt: str | None = None,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        long_text: LongText = "truncate",
    ) -> str:
        """The fingerprint of vectors that `encode` makes with these settings."""
        settings = [
            self.fingerprint,
            self.prompt_text(prompt),
            self.recipe.normalise if normalize_embeddings is None else normalize_embeddings,
            truncate_dim or self.dim,
            long_text,
        ]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def prompt_text(self, prompt: str | None) -> str:
        """What is put before each text: of a name of the recipe its text, else `prompt` itself."""
        name = self.recipe.default_prompt if prompt is None else prompt
        return "" if name is None else self.recipe.prompts.get(name, name)

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        long_text: LongText = "truncate",
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Vectors:
        """One vector for each text, in the order given.

        Args:
            texts: a list of texts, or one text.
            prompt: a name of the recipe's prompts, or a text, put before each text; None takes
                the recipe's default, "" none.
            normalize_embeddings: True for vectors of length 1, False to leave them; None does as
                the recipe says.
            truncate_dim: keep this many components, then normalise.
            precision: "int8" for a quarter of the bytes, "binary" for a 32nd, see
                `quantise_vectors`; `similarity` takes all of them.
            long_text: what to do with texts over the recipe's `max_length`: "truncate" cuts them,
                "windows" embeds overlapping windows and takes their mean weighted by tokens,
                "error" refuses them.
            batch_tokens: tokens computed at once.
            show_progress_bar: None shows one on a terminal, for more than a few batches.

        Returns:
            `(texts, dim)` of float32 or int8, as "binary" `(texts, ⌈dim / 8⌉)` of uint8; for a
            single text without the first axis; without any text `(0, dim)`.

        Raises: TypeError for anything but texts, with its index; TextError for a lone surrogate,
            or a long text under "error".
        Differs: sentence-transformers does not normalise again after `truncate_dim`; its quantised
            vectors are others.
        """
        check_precision(precision)
        single = isinstance(texts, str)
        listed = [texts] if isinstance(texts, str) else _listed(texts)
        sequences, owners, skips = self._sequences(listed, self.prompt_text(prompt), long_text)
        with torch.inference_mode():
            pooled = self._pooled(sequences, skips, batch_tokens, show_progress_bar)
            tokens = [len(ids) - skip for ids, skip in zip(sequences, skips, strict=True)]
            vectors = self._finish(
                _merge_windows(pooled, tokens, owners, len(listed)),
                self.recipe.normalise if normalize_embeddings is None else normalize_embeddings,
                truncate_dim,
            )
        array = quantise_vectors(vectors.float().numpy(), precision)
        return array[0] if single else array

    def stream(
        self,
        texts: Iterable[str],
        *,
        chunk_texts: int = CHUNK_TEXTS,
        prompt: str | None = None,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        long_text: LongText = "truncate",
        batch_tokens: int | None = None,
    ) -> Iterator[Vectors]:
        """The vectors of any number of texts, `chunk_texts` rows at a time, in order.

        Holds one chunk in memory, so a corpus of any size can be embedded. Settings as in `encode`;
        a fault is reported with its index within the corpus.
        """
        if isinstance(texts, str):
            raise TypeError("got one text, expected an iterable of texts; put it into a list")
        if chunk_texts < 1:
            raise ValueError(f"got chunk_texts {chunk_texts}, expected at least 1")
        self.settle(len(texts) if isinstance(texts, Sized) else None)
        iterator, done = iter(texts), 0
        while chunk := list(islice(iterator, chunk_texts)):
            try:
                yield self.encode(
                    chunk,
                    prompt=prompt,
                    normalize_embeddings=normalize_embeddings,
                    truncate_dim=truncate_dim,
                    precision=precision,
                    long_text=long_text,
                    batch_tokens=batch_tokens,
                    show_progress_bar=False,
                )
            except (TextError, TypeError) as error:
                counted = f"; counted from text {done} of the corpus" if done else ""
                raise type(error)(f"{error}{counted}") from None
            done += len(chunk)

    @staticmethod
    def similarity(a: Vectors, b: Vectors, *, dim: int | None = None) -> NDArray[np.float32]:
        """The cosine of every vector of `a` with every vector of `b`: `(len(a), len(b))`.

        A single vector counts as one row. A zero vector has the cosine 0 with all. `a` and `b` may
        be of different precisions; a binary vector is one of 1 and -1, so that the cosine of two is
        1 - 2 h / dim where h bits differ.

        Args:
            dim: the components of two binary ones, if that is no multiple of 8.

        Raises: ValueError for vectors of different dims.
        """
        first, second = (np.atleast_2d(np.asarray(each)) for each in (a, b))
        dim = common_dim(first, second, dim)
        units = normalise(torch.from_numpy(components(first, dim)))
        cosines = np.empty((len(first), len(second)), dtype=np.float32)
        for start in range(0, len(second), CHUNK_TEXTS):  # so that few are float32 at once
            block = torch.from_numpy(components(second[start : start + CHUNK_TEXTS], dim))
            cosines[:, start : start + CHUNK_TEXTS] = (units @ normalise(block).T).numpy()
        return cosines

    def _sequences(
        self, texts: list[str], prompt: str, long_text: LongText
    ) -> tuple[list[Tokens], list[int], list[int]]:
        """Token ids ready for the encoder; of each, its text and its first tokens not to pool."""
        if long_text not in ("truncate", "windows", "error"):
            raise ValueError(
                f"got long_text {long_text!r}, expected 'truncate', 'windows' or 'error'"
            )
        cls, sep, room = self.tokenizer.cls_id, self.tokenizer.sep_id, self.recipe.max_length - 2
        prepared = texts
        if prompt:
            texts = checked_texts(texts, "texts")
            prepared = [prompt + text for text in texts]
        skipped = 0
        if prompt and not self.recipe.pools_prompt:
            skipped = 1 + len(self.tokenizer.ids([prompt])[0])
            if skipped > room:
                raise TextError(
                    f"the prompt has {skipped - 1} tokens, expected fewer than {room - 1}; "
                    "shorten it, or the texts have no room"
                )
        sequences: list[Tokens] = []
        owners: list[int] = []
        skips: list[int] = []
        enough = room if long_text == "truncate" else None
        for index, ids in enumerate(self.tokenizer.ids(prepared, enough=enough)):
            spans = [(0, len(ids))]
            if len(ids) > room:
                if long_text == "error":
                    raise TextError(
                        f"text {index} has {len(ids) + 2} tokens, expected at most "
                        f"{self.recipe.max_length}; shorten it, or choose long_text='truncate' or "
                        "'windows'"
                    )
                spans = [(0, room)]
                if long_text == "windows":
                    spans = window_spans(len(ids), room, room // 8)
            for start, stop in spans:
                sequences.append((cls, *ids[start:stop], sep))
                owners.append(index)
                # A later window holds what the overlap repeats of the prompt, mostly nothing.
                skip = skipped - start if start < skipped - 1 else 0
                # [SEP] at least is left where the prompt melts with a word into fewer tokens.
                skips.append(min(skip, len(sequences[-1]) - 1))
        return sequences, owners, skips

    def _pooled(
        self,
        sequences: Sequence[Tokens],
        skips: Sequence[int],
        batch_tokens: int | None,
        show_progress_bar: bool | None,
    ) -> Float[Tensor, "sequences pooled"]:
        """Each sequence's pooled vector, in order; what occurs more than once is computed once."""
        rows: dict[tuple[Tokens, int], int] = {}
        row_of = [rows.setdefault(key, len(rows)) for key in zip(sequences, skips, strict=True)]
        distinct = self._computed(list(rows), batch_tokens, show_progress_bar)
        return distinct if len(rows) == len(row_of) else distinct[torch.tensor(row_of)]

    def _computed(
        self,
        sequences: Sequence[tuple[Tokens, int]],
        batch_tokens: int | None,
        show_progress_bar: bool | None,
    ) -> Float[Tensor, "sequences pooled"]:
        """The pooled vector of each sequence and skip, computed in batches of similar length."""
        if batch_tokens is not None and batch_tokens < 1:
            raise ValueError(f"got batch_tokens {batch_tokens}, expected at least 1")
        lengths = [len(ids) for ids, _ in sequences]
        engine = self._engines.for_tokens(sum(lengths))
        if len(sequences) == 1:  # as of a question that someone waits for: nothing to sort or show
            return self._computed_at_once(engine, sequences)
        if engine is not None:
            budget = KERNEL_TOKENS
        elif self._engines.reproducible:
            budget = 1
        else:
            budget = BATCH_TOKENS if batch_tokens is None else batch_tokens
        order = sorted(range(len(sequences)), key=lengths.__getitem__, reverse=True)
        width = self.model.config.hidden_size * len(self.recipe.pooling)
        wide = torch.float64 if self._dtype == torch.float64 else torch.float32
        out = torch.empty(len(sequences), width, dtype=wide)
        long = sum(lengths) > 8 * budget
        with progress(len(sequences), "embedding", long=long, asked=show_progress_bar) as bar:
            for batch in budgeted_batches(order, lengths, budget):
                of_batch = [sequences[index] for index in batch]
                out[torch.tensor(batch)] = self._computed_at_once(engine, of_batch)
                bar.update(len(batch))
        return out

    def _computed_at_once(
        self, engine: "AnyEngine | None", sequences: Sequence[tuple[Tokens, int]]
    ) -> Float[Tensor, "sequences pooled"]:
        if engine is None:
            return self._pooled_by_pytorch(sequences)
        return self._pooled_by_kernels(engine, sequences)

    def _pooled_by_pytorch(
        self, sequences: Sequence[tuple[Tokens, int]]
    ) -> Float[Tensor, "sequences pooled"]:
        ids = torch.from_numpy(_joined(sequences, np.int64)).to(self._device)
        layout = Packed.from_lengths([len(ids) for ids, _ in sequences], self._device)
        hidden = self.model(ids, layout=layout).last_hidden_state
        return self._pooled_without_skips(hidden, layout, sequences).cpu()

    def _pooled_by_kernels(
        self, engine: "AnyEngine", sequences: Sequence[tuple[Tokens, int]]
    ) -> Float[Tensor, "sequences pooled"]:
        ids = _joined(sequences, np.int32)
        lengths = np.array([len(ids) for ids, _ in sequences], dtype=np.int32)
        if self.recipe.pooling == ("mean",):
            skips = np.array([skip for _, skip in sequences], dtype=np.int32)
            return engine.mean(ids, lengths, skips if skips.any() else None)
        hidden = engine.hidden(ids, lengths)
        return self._pooled_without_skips(hidden, Packed.from_lengths(lengths.tolist()), sequences)

    def _pooled_without_skips(
        self, hidden: Tensor, layout: Packed, sequences: Sequence[tuple[Tokens, int]]
    ) -> Float[Tensor, "sequences pooled"]:
        skips = [skip for _, skip in sequences]
        if any(skips):
            hidden, layout = _without(hidden, layout, skips)
        return pool(hidden, layout, self.recipe.pooling)

    def _finish(
        self, pooled: Tensor, normalised: bool, truncate_dim: int | None
    ) -> Float[Tensor, "texts dim"]:
        """What stands behind the pooling: dense modules, truncation, normalisation."""
        vectors = through_dense(pooled, self.recipe, self.dense)
        if truncate_dim is not None:
            vectors = truncate(vectors, truncate_dim)
        return normalise(vectors) if normalised else vectors

    @property
    def _device(self) -> torch.device:
        return self.model.embeddings.token.weight.device

    @property
    def _dtype(self) -> torch.dtype:
        return self.model.embeddings.token.weight.dtype


def through_dense(
    pooled: Float[Tensor, "texts pooled"], recipe: Recipe, dense: Iterable[nn.Module]
) -> Float[Tensor, "texts dim"]:
    """What the dense modules of a recipe, with these linear maps, make of pooled vectors."""
    vectors = pooled
    for step, linear in zip(recipe.dense, dense, strict=True):
        weight = linear.weight
        assert isinstance(weight, Tensor)
        vectors = vectors.to(device=weight.device, dtype=weight.dtype)
        vectors = _ACTIVATIONS[step.activation](linear(vectors)).to(pooled)
    return vectors


def _listed(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, bytes | bytearray) or not isinstance(texts, Iterable):
        raise TypeError(f"got {type(texts).__name__}, expected a text or a list of texts")
    return list(texts)


def budgeted_batches(
    order: Sequence[int], lengths: Sequence[int], budget: int
) -> Iterator[list[int]]:
    """Consecutive members of `order` whose tokens fit the budget, and at least one of them."""
    batch: list[int] = []
    tokens = 0
    for index in order:
        if batch and tokens + lengths[index] > budget:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


def _joined(
    sequences: Sequence[tuple[Tokens, int]], dtype: type[np.int64] | type[np.int32]
) -> NDArray[Any]:
    """The ids of all sequences, one after the other."""
    count = sum(len(ids) for ids, _ in sequences)
    return np.fromiter((token for ids, _ in sequences for token in ids), dtype=dtype, count=count)


def _without(hidden: Tensor, layout: Packed, skips: Sequence[int]) -> tuple[Tensor, Packed]:
    """What is left without the first tokens of each sequence, as many as `skips` says."""
    kept = layout.positions >= torch.tensor(skips, device=hidden.device)[layout.sequence]
    lengths = tuple(n - skip for n, skip in zip(layout.lengths, skips, strict=True))
    return hidden[kept], Packed(lengths, layout.positions[kept])


def _merge_windows(
    pooled: Tensor, lengths: Sequence[int], owners: Sequence[int], n_texts: int
) -> Float[Tensor, "texts pooled"]:
    """The mean of each text's windows, weighted by their tokens; the weights of a text sum to 1."""
    if len(owners) == n_texts:
        return pooled
    owner = torch.tensor(owners)
    tokens = torch.tensor(lengths, dtype=pooled.dtype)
    total = torch.zeros(n_texts, dtype=pooled.dtype).index_add_(0, owner, tokens)
    weights = tokens / total[owner]
    merged = torch.zeros(n_texts, pooled.shape[1], dtype=pooled.dtype)
    return merged.index_add_(0, owner, pooled * weights[:, None])


def _load_dense(step: DenseStep, model: BertModel) -> nn.Linear:
    """The linear layer of a dense module, with its weights."""
    weight = model.embeddings.token.weight
    linear = nn.Linear(step.in_features, step.out_features, bias=step.bias, device="meta")
    tensors = tensor_files.read_all(step.folder)
    expected = {f"linear.{name}": tuple(p.shape) for name, p in linear.named_parameters()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if got != expected:
        raise CheckpointError(f"{step.folder}: holds tensors {got}, expected {expected}")
    state = {
        name.removeprefix("linear."): tensor.to(device=weight.device, dtype=weight.dtype)
        for name, tensor in tensors.items()
    }
    linear.load_state_dict(state, assign=True)
    return linear


def progress(total: int, what: str, *, long: bool, asked: bool | None) -> "tqdm[None]":
    """A progress bar on standard error; silent unless asked for, or long and on a terminal."""
    from tqdm import tqdm  # here: a bar is rarely shown, and the import is felt at start-up

    shown = asked if asked is not None else long and sys.stderr.isatty()
    return tqdm(total=total, unit="text", desc=what, disable=not shown)


@cache
def stay_alive_after_fork() -> None:
    """Let forked children compute on one thread: the thread pool of OpenMP is not in the child,
    and a parallel region that waits for it never ends."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
