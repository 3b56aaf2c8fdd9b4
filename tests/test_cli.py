"""The `minibert` command: what it prints, what it writes, and its one line for every bad input."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.utils.flop_counter import FlopCounterMode

import minibert
from minibert import cli, weights
from minibert.cli import bench
from minibert.cli.info import Row, module_tree
from minibert.cli.models import ModelChoice, Settings
from minibert.config import BertConfig
from minibert.embed import Embedder
from minibert.model import BertModel, explicit_attention, set_attention
from minibert.tokenizer import Tokenizer
from minibert.vectors import read_vectors

COMMANDS = ("fetch", "info", "embed", "search", "similarity", "bench", "trace", "init")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), ":"]
TEXTS = ["one", "two words", "", "thr ee w o r d s", "one", "six6", "s e v e n"]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 12 dimensions with prompts, in a folder."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCAB),
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    prompts = {"prompts": {"query": "ask: ", "odd": "odd: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


@pytest.fixture(scope="module")
def embedder(tiny: Path) -> Embedder:
    return Embedder.from_pretrained(tiny)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process."""

    def call(*args: str | Path) -> Outcome:
        capfd.readouterr()
        code = cli.main([str(arg) for arg in args])
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Runs the command, which must refuse in one line and print nothing else; gives the line."""

    def call(*args: str | Path) -> str:
        outcome = run(*args)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("minibert: ")
        assert outcome.err.count("\n") == 1
        return outcome.err.removeprefix("minibert: ").removesuffix("\n")

    return call


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def give(content: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))

    return give


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "minibert", *map(str, args)]


# The command itself.


def test_help_imports_nothing_slow_and_names_every_command() -> None:
    script = """
import sys
from minibert.cli import main
for args in (["--help"], ["--version"], [], *([name, "--help"] for name in sys.argv[1:])):
    assert main(args) == 0
slow = {"torch", "tokenizers", "huggingface_hub", "numpy", "safetensors", "tqdm", "jaxtyping"}
print("imported:", sorted(slow & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", script, *COMMANDS], capture_output=True, text=True, check=True
    )
    assert found.stdout.endswith("imported: []\n")
    for name in COMMANDS:
        assert f"\n  {name} " in found.stdout
        assert f"Usage: minibert {name} " in found.stdout


def test_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == (0, f"minibert {minibert.__version__}\n", "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nope"], "No such command 'nope' (see minibert --help)"),
        (["embed"], "got no texts; give some, or a file of them with --input (see minibert embed"),
        (["embed", "a", "--input", "b"], "got texts and --input, expected one of them"),
        (["embed", "a", "--field", "b"], "--format and --field are for a file, given with --input"),
        (["embed", "a", "--append"], "--overwrite, --append and --with-text need an --output"),
        (["embed", "a", "--output", "a.npy", "--with-text"], "--with-text needs an output that"),
        (["embed", "a", "--batch-tokens", "0"], "Invalid value for '--batch-tokens'"),
        (["embed", "a", "--long-text", "x"], "Invalid value for '--long-text'"),
        (["search", "a"], "Missing option '--corpus' (see minibert search --help)"),
        (["similarity", "a"], "Missing argument"),
        (["bench", "--seconds", "0"], "Invalid value for '--seconds'"),
        (["bench", "--field", "a"], "--format and --field are for a file, given with --texts"),
        (["fetch"], "Missing argument 'NAME' (see minibert fetch --help)"),
        (["embed", "a", "--no-such"], "No such option"),
    ],
)
def test_wrong_use_is_one_line(refused: Callable[..., str], args: list[str], said: str) -> None:
    assert said in refused(*args)


@pytest.mark.parametrize("args", [["embed", "a"], ["info"], ["similarity", "a", "b"]])
def test_unknown_model_is_one_line(refused: Callable[..., str], args: list[str]) -> None:
    assert "no model 'nonsense'" in refused(*args, "--model", "nonsense")
    assert "no model 'nonsense'" in refused("bench", "nonsense")


def test_system_errors_are_one_line(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ModelChoice) -> None:
        raise OSError(errno.EIO, "Input/output error", "/some/file")

    monkeypatch.setattr(ModelChoice, "load", fail)
    assert refused("embed", "a") == "/some/file: Input/output error"


def test_interrupted_command_exits_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelChoice, "load", interrupt)
    assert run("embed", "a") == (130, "", "minibert: stopped\n")
    monkeypatch.setattr(weights, "fetch", interrupt)
    assert run("fetch", "a-name") == (
        130,
        "",
        "minibert: stopped; `minibert fetch a-name` goes on from what has arrived\n",
    )


@pytest.mark.parametrize("args", [["--help"], ["embed", "--model", "TINY", "--input", "TEXTS"]])
def test_closed_pipe_is_quiet(tiny: Path, corpus: Path, args: list[str]) -> None:
    corpus.write_text("a text\n" * 2000)  # more than a pipe holds
    named = [{"TINY": str(tiny), "TEXTS": str(corpus)}.get(arg, arg) for arg in args]
    with subprocess.Popen(
        command(*named), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_full_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(command("--help"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (found.returncode, found.stderr) == (2, "minibert: No space left on device\n")


# fetch


def test_fetch_prints_the_folder(
    run: Run, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "fetch", lambda name: Path("/cache") / name)
    assert run("fetch", "a-name") == (0, "/cache/a-name\n", "")
    monkeypatch.undo()
    assert "no model 'nonsense'" in refused("fetch", "nonsense")


# info


def test_info_says_what_a_model_is(run: Run, tiny: Path, embedder: Embedder) -> None:
    out = run("info", "--model", tiny).out
    assert f"fingerprint   {embedder.fingerprint}\n" in out
    assert "vector width  12\n" in out
    assert "plain BERT folder: mean pooling, normalised\n" in out
    assert "  num_hidden_layers             2\n" in out
    assert "\nweights\n  39 tensors loaded as float32\n" in out
    facts = json.loads(run("info", "--model", tiny, "--json", "--tree", "--seq", "4").out)
    assert (facts["fingerprint"], facts["dim"]) == (embedder.fingerprint, 12)
    assert facts["config"] == embedder.model.config.to_dict()
    assert facts["recipe"].items() >= embedder.recipe.to_dict().items()
    assert (len(facts["load_report"]["loaded"]), facts["load_report"]["dtype"]) == (39, "float32")
    assert facts["tree"]["modules"][0]["output"] == [8, 4, 12]


def test_tree_counts_what_is_worked_out_by_hand() -> None:
    config = BertConfig(
        vocab_size=10,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=6,
    )
    rows = module_tree(config, batch=2, seq=3, pooler=True, dtype="float32")

    def row(name: str, kind: str, out: tuple[int, ...] | None, parameters: int, flops: int) -> Row:
        found = next(row for row in rows if row.name == name)
        activations = found.activation_bytes
        return Row(name, kind, out, parameters, 4 * parameters, flops, activations)

    # 6 tokens; 2·tokens·inputs·outputs a linear layer.
    tensor = (2, 3, 4)
    assert rows == [
        row("", "BertModel", tensor, 80 + 172 + 20, 1824 + 64),
        row("embeddings", "Embeddings", tensor, 72 + 8, 0),
        row("embeddings.token", "Embedding", tensor, 10 * 4, 0),
        row("embeddings.token_type", "Embedding", tensor, 2 * 4, 0),
        row("embeddings.position", "Embedding", (3, 4), 6 * 4, 0),
        row("embeddings.norm", "AddNorm", tensor, 8, 0),
        row("layers", "ModuleList", None, 172, 1824),
        row("layers.0", "Layer", tensor, 80 + 8 + 76 + 8, 1824),
        row("layers.0.attention", "SelfAttention", tensor, 80, 576 + 288 + 192),
        row("layers.0.attention.qkv", "Linear", (2, 3, 12), 4 * 12 + 12, 2 * 6 * 4 * 12),
        # 2 texts, 2 heads, 3 queries, 3 keys, 2 dimensions: scores and context.
        row("layers.0.attention.attend", "attention", (2, 3, 2, 2), 0, 2 * 2 * 2 * 2 * 3 * 3 * 2),
        row("layers.0.attention.output", "Linear", tensor, 4 * 4 + 4, 2 * 6 * 4 * 4),
        row("layers.0.attention_norm", "AddNorm", tensor, 8, 0),
        row("layers.0.feed_forward", "FeedForward", tensor, 40 + 36, 384 + 384),
        row("layers.0.feed_forward.up", "Linear", (2, 3, 8), 4 * 8 + 8, 2 * 6 * 4 * 8),
        row("layers.0.feed_forward.activation", "gelu", (2, 3, 8), 0, 0),
        row("layers.0.feed_forward.down", "Linear", tensor, 8 * 4 + 4, 2 * 6 * 8 * 4),
        row("layers.0.feed_forward_norm", "AddNorm", tensor, 8, 0),
        row("pooler", "Pooler", (2, 4), 20, 64),
        row("pooler.dense", "Linear", (2, 4), 4 * 4 + 4, 2 * 2 * 4 * 4),
    ]
    activations = {row.name: row.activation_bytes for row in rows}
    assert activations["layers.0.attention"] == 4 * (72 + 24 + 24)
    assert activations["layers.0.feed_forward"] == 4 * (48 + 48 + 24)
    assert activations["layers"] == 4 * (120 + 24 + 120 + 24)
    assert activations["embeddings"] == 4 * (24 + 24 + 12 + 24)
    assert activations[""] == 4 * (288 + 84 + 8)


@pytest.mark.parametrize(("dtype", "bytes_a_weight"), [("int8", 1), ("int16", 2)])
def test_tree_counts_integers_as_they_are_stored(dtype: str, bytes_a_weight: int) -> None:
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    by_name, floats = (
        {row.name: row for row in module_tree(config, batch=2, seq=3, pooler=True, dtype=each)}
        for each in (dtype, "float32")
    )
    up = by_name["layers.0.feed_forward.up"]
    assert up.flops == floats["layers.0.feed_forward.up"].flops
    assert up.parameter_bytes == 8 * 16 * bytes_a_weight + 2 * 16 * 4  # scales and biases


@pytest.mark.parametrize("pooler", [True, False])
def test_tree_agrees_with_the_model_and_with_torch(tiny: Path, pooler: bool) -> None:
    model = BertModel.from_pretrained(tiny)
    set_attention(model, explicit_attention)
    if not pooler:
        model.pooler = None
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(3, 5, dtype=torch.long))
    rows = module_tree(model.config, batch=3, seq=5, pooler=pooler, dtype="float16")
    assert rows[0].flops == counter.get_total_flops()
    assert rows[0].parameters == sum(each.numel() for each in model.parameters())
    assert rows[0].parameter_bytes == 2 * rows[0].parameters
    listed = {row.name for row in rows if row.kind not in ("attention", "gelu")}
    kinds = {name for name, each in model.named_modules() if not isinstance(each, torch.nn.Dropout)}
    assert listed == kinds


def test_tree_is_printed_with_totals_at_the_bottom(
    run: Run, refused: Callable[..., str], tiny: Path
) -> None:
    out = run("info", "--model", tiny, "--tree", "--batch", "3", "--seq", "5").out
    table = out.partition("modules, for 3 texts of 5 tokens in float32\n")[2].splitlines()
    assert table[0].split() == [
        "module",
        "output",
        "parameters",
        "memory",
        "FLOPs",
        "activations",
    ]
    assert table[2].split()[:3] == ["BertModel", "3×5×12", "3,900"]
    assert table[-1].split()[0] == "total"
    assert table[-1].split()[1:] == table[2].split()[1:]
    assert "--seq is 17, expected at most 16" in refused(
        "info", "--model", tiny, "--tree", "--seq", "17"
    )


# embed


def test_embed_prints_texts_and_their_vectors(run: Run, tiny: Path, embedder: Embedder) -> None:
    outcome = run("embed", "--model", tiny, "one", "two é\n\u2028")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [json.loads(line) for line in outcome.out.split("\n")[:-1]]
    assert [list(line) for line in lines] == [["text", "embedding"]] * 2
    assert [line["text"] for line in lines] == ["one", "two é\n\u2028"]
    printed = np.array([line["embedding"] for line in lines], dtype=np.float32)
    np.testing.assert_array_equal(printed, embedder.encode(["one", "two é\n\u2028"]))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".jsonl"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "tsv", "-"])
def test_embed_writes_what_encode_gives(
    run: Run,
    stdin: Callable[[str], None],
    tiny: Path,
    embedder: Embedder,
    tmp_path: Path,
    kind: str,
    suffix: str,
) -> None:
    source, output = tmp_path / f"in.{kind}", tmp_path / f"v{suffix}"
    lines = {
        "txt": TEXTS,
        "-": TEXTS,
        "jsonl": [json.dumps({"body": text}) for text in TEXTS],
        "csv": ["id,body", *(f"1,{text}" for text in TEXTS)],
        "tsv": ["id\tbody", *(f"1\t{text}" for text in TEXTS)],
    }[kind]
    content = "".join(line + "\n" for line in lines)
    source.write_text(content)
    stdin(content)
    options = ["--input", "-" if kind == "-" else source, "--output", output]
    if kind not in ("txt", "-"):
        options += ["--field", "body"]
    outcome = run("embed", "--model", tiny, *options)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("minibert: 7 texts, in ")
    assert outcome.err.endswith(f" -> {output}\n")
    found = read_vectors(output)
    np.testing.assert_array_equal(found.vectors, embedder.encode(TEXTS))
    assert found.fingerprint == embedder.fingerprint_of()
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(output, mmap_mode="r"), found.vectors)
    if suffix == ".safetensors":
        np.testing.assert_array_equal(load_file(output)["embeddings"], found.vectors)


def test_embed_settings_reach_the_vectors_and_the_fingerprint(
    run: Run, refused: Callable[..., str], tiny: Path, embedder: Embedder, tmp_path: Path
) -> None:
    long = ["a b c d e f g h i j k l m n o p q r s t", "short"]

    def check(options: list[str], **settings: Any) -> None:
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        assert run("embed", "--model", tiny, *long, "--output", output, *options).code == 0
        expected = embedder.encode(long, **settings)
        np.testing.assert_array_equal(read_vectors(output).vectors, expected)
        for no_part in ("batch_tokens", "precision"):
            settings.pop(no_part, None)
        assert read_vectors(output).fingerprint == embedder.fingerprint_of(**settings)

    check(["--prompt", "odd"], prompt="odd")
    check(["--prompt", "some text"], prompt="some text")
    check(["--no-normalize"], normalize_embeddings=False)
    check(["--normalize"], normalize_embeddings=True)
    check(["--truncate-dim", "5"], truncate_dim=5)
    check(["--precision", "int8"], precision="int8")
    check(["--precision", "binary", "--truncate-dim", "9"], precision="binary", truncate_dim=9)
    check(["--long-text", "windows"], long_text="windows")
    check(["--batch-tokens", "1"], batch_tokens=1)
    half = Embedder.from_pretrained(tiny, dtype="bfloat16")
    output = tmp_path / "half.npy"
    assert run("embed", "--model", tiny, "a", "--output", output, "--dtype", "bfloat16").code == 0
    assert read_vectors(output).fingerprint == half.fingerprint_of() != embedder.fingerprint_of()
    np.testing.assert_array_equal(read_vectors(output).vectors, half.encode(["a"]))
    output = tmp_path / "split.npy"
    assert run("embed", "--model", tiny, "a", "--output", output, "--dtype", "bfloat16x3").code == 0
    assert read_vectors(output).fingerprint == embedder.fingerprint_of()
    assert "--truncate-dim is 13, expected at most 12, the width" in refused(
        "embed", "--model", tiny, "a", "--truncate-dim", "13"
    )
    assert "--sha256" not in refused("embed", "--model", tiny, "a", "--sha256", "0" * 64)
    assert "the pinned one is 0000" in refused("embed", "--model", tiny, "a", "--sha256", "0" * 64)
    assert "is a folder, so revision='x' says nothing" in refused(
        "embed", "--model", tiny, "a", "--revision", "x"
    )


def test_embed_prints_a_file_in_chunks_without_output(run: Run, tiny: Path, corpus: Path) -> None:
    outcome = run("embed", "--model", tiny, "--input", corpus, "--chunk-texts", "2")
    assert [json.loads(line)["text"] for line in outcome.out.splitlines()] == TEXTS
    assert outcome.err.startswith("minibert: 7 texts in ")


def test_embed_shows_a_bar_on_a_terminal(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    stdin: Callable[[str], None],
    tiny: Path,
    corpus: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    wanted = ["embed", "--model", tiny, "--chunk-texts", "2"]
    bar = run(*wanted, "--input", corpus, "--output", tmp_path / "v.npy").err
    assert "v.npy: 100%|" in bar
    assert f" {corpus.stat().st_size:.1f}/{corpus.stat().st_size:.1f} [" in bar
    assert " texts/s]" in bar
    stdin(corpus.read_text())
    bar = run(*wanted, "--input", "-", "--output", tmp_path / "w.npy").err
    assert "w.npy: 7text [" in bar


def test_embed_of_an_empty_file_writes_no_rows(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    output = tmp_path / "v.npy"
    assert run(
        "embed", "--model", tiny, "--input", output.with_name("empty.txt"), "--output", output
    )
    assert np.load(output).shape == (0, 12)


def test_embed_appends_and_overwrites_when_told(
    run: Run, refused: Callable[..., str], tiny: Path, embedder: Embedder, tmp_path: Path
) -> None:
    output = tmp_path / "v.jsonl"
    wanted = ["embed", "--model", tiny, "--output", output, "--with-text"]
    assert run(*wanted, "one").code == 0
    assert refused(*wanted, "two") == (
        f"{output}: exists; --overwrite replaces it, --append adds to it"
    )
    assert run(*wanted, "two", "--append").code == 0
    np.testing.assert_array_equal(
        read_vectors(output).vectors, np.stack([embedder.encode(text) for text in ("one", "two")])
    )
    before = output.read_bytes()
    assert "another kind: precision 'float32' there, 'int8' here; embed as it was made" in refused(
        *wanted, "three", "--append", "--precision", "int8"
    )
    assert "holds vectors of another kind: prompt '' there, 'odd: ' here" in refused(
        *wanted, "three", "--append", "--prompt", "odd"
    )
    assert output.read_bytes() == before
    assert run(*wanted, "four", "--overwrite", "--prompt", "odd").code == 0
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == ["four"]
    assert "expected one of them" in refused(*wanted, "five", "--overwrite", "--append")


def embeds_then(
    monkeypatch: pytest.MonkeyPatch, n_chunks: int, error: BaseException
) -> Callable[[], None]:
    """Have the embedding of a later chunk raise; gives what undoes that."""
    encode, calls = Settings.encode, []

    def failing(self: Settings, embedder: Embedder, texts: Any) -> Any:
        calls.append(len(texts))
        if len(calls) > n_chunks:
            raise error
        return encode(self, embedder, texts)

    monkeypatch.setattr(Settings, "encode", failing)
    return lambda: monkeypatch.setattr(Settings, "encode", encode)


def test_embed_stopped_by_the_user_says_what_is_kept_and_resumes(
    run: Run, monkeypatch: pytest.MonkeyPatch, tiny: Path, corpus: Path, tmp_path: Path
) -> None:
    output = tmp_path / "v.npy"
    wanted = ["embed", "--model", tiny, "--input", corpus, "--output", output, "--chunk-texts", "2"]
    undo = embeds_then(monkeypatch, 2, KeyboardInterrupt())
    assert run(*wanted) == (
        130,
        "",
        "minibert: stopped; 4 texts kept, the same command goes on behind them\n",
    )
    undo()
    outcome = run(*wanted)
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    assert lines[0] == f"minibert: {output}: resuming at text 5"
    assert lines[1].startswith("minibert: 7 texts, 4 of them earlier, in ")
    resumed = output.read_bytes()
    assert run(*wanted, "--overwrite").code == 0
    assert output.read_bytes() == resumed
    embeds_then(monkeypatch, 0, KeyboardInterrupt())
    assert run(*wanted, "--overwrite") == (130, "", "minibert: stopped\n")
    assert output.read_bytes() == resumed


def test_embed_refuses_to_resume_what_does_not_fit(
    run: Run,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    stdin: Callable[[str], None],
    tiny: Path,
    embedder: Embedder,
    corpus: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "v.npy"
    options = ["--model", tiny, "--output", output, "--chunk-texts", "2"]
    wanted = ["embed", *options, "--input", corpus]
    undo = embeds_then(monkeypatch, 2, KeyboardInterrupt())
    assert run(*wanted).code == 130
    undo()
    assert "its stopped job is another: prompt '' there, 'odd: ' here; --overwrite starts" in (
        refused(*wanted, "--prompt", "odd")
    )
    assert "its stopped job is another: batch_tokens 1024 there, 7 here" in refused(
        *wanted, "--batch-tokens", "7"
    )
    corpus.write_text("changed\n" + corpus.read_text())
    outcome = run(*wanted)
    assert outcome == (
        2,
        "",
        f"minibert: {output}: resuming at text 5\n"
        f"minibert: {output}: the input has changed since its job was stopped at text 4; "
        "--overwrite starts it again\n",
    )
    stdin("other\n" * 4)
    outcome = run("embed", *options, "--input", "-", "--overwrite")
    assert outcome.err.endswith("standard input cannot be read twice; run the command again\n")
    outcome = run(*wanted, "--overwrite")
    assert outcome.code == 0
    np.testing.assert_array_equal(
        read_vectors(output).vectors[:2], embedder.encode(["changed", "one"])
    )


def test_embed_starts_again_on_a_changed_input_when_told(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Path,
    embedder: Embedder,
    corpus: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "v.npy"
    wanted = ["embed", "--model", tiny, "--input", corpus, "--output", output, "--chunk-texts", "2"]
    undo = embeds_then(monkeypatch, 2, KeyboardInterrupt())
    assert run(*wanted).code == 130
    undo()
    corpus.write_text("a\nb\nc\n")
    outcome = run(*wanted, "--overwrite")
    assert (
        outcome.err.splitlines()[1] == f"minibert: {output}: the input has changed, starting again"
    )
    np.testing.assert_allclose(
        read_vectors(output).vectors, embedder.encode(["a", "b", "c"]), atol=1e-6
    )


def test_embed_keeps_what_stands_before_a_bad_line(
    run: Run, tiny: Path, embedder: Embedder, tmp_path: Path
) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "v.npy"
    source.write_text('"a"\n"b"\n"c"\n7\n')
    wanted = ["embed", "--model", tiny, "--input", source, "--output", output, "--chunk-texts", "2"]
    assert run(*wanted).err == (
        f"minibert: {source}: line 4: got int 7, expected a string, or an object whose 'text' is "
        "one; 2 texts kept, the same command goes on behind them\n"
    )
    source.write_text('"a"\n"b"\n"c"\n"d"\n')
    assert "resuming at text 3" in run(*wanted).err
    np.testing.assert_allclose(
        read_vectors(output).vectors, embedder.encode(["a", "b", "c", "d"]), atol=1e-6
    )


@pytest.fixture
def one_thread() -> Iterator[dict[str, str]]:
    """Compute on one thread, here and in the processes that get these variables."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    torch.set_num_threads(before)


@pytest.mark.slow
def test_embed_killed_at_any_moment_gives_the_same_file(
    run: Run,
    refused: Callable[..., str],
    one_thread: dict[str, str],
    minilm: Path,
    tmp_path: Path,
) -> None:
    source, output = tmp_path / "in.txt", tmp_path / "v.npy"
    source.write_text("".join(f"This is sentence {n} of {n * 7}.\n" for n in range(300)))
    options = ["embed", "--model", minilm, "--input", source, "--chunk-texts", "8"]
    wanted = [*options, "--output", output]
    state = tmp_path / "v.npy.partial.json"

    def rows_done() -> int:
        return json.loads(state.read_bytes())["rows"] if state.exists() else 0

    done = 0
    for moment in (16, 104):
        with subprocess.Popen(
            command(*wanted), stderr=subprocess.PIPE, text=True, env=one_thread
        ) as process:
            deadline = time.monotonic() + 120
            while rows_done() < max(moment, done + 8):  # and some of its own
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.002)
            if moment == 16:
                assert "another process is writing it" in refused(*wanted)
            process.send_signal(signal.SIGKILL)
            assert process.stderr is not None
            said = process.stderr.read()
        assert process.returncode == -signal.SIGKILL
        assert not output.exists()
        assert said == (f"minibert: {output}: resuming at text {done + 1}\n" if done else "")
        done = rows_done()
        assert moment <= done < 300
    assert f"resuming at text {done + 1}\n" in run(*wanted).err
    assert run(*options, "--output", tmp_path / "whole.npy").code == 0
    assert output.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.txt",
        "v.npy",
        "v.npy.json",
        "whole.npy",
        "whole.npy.json",
    ]


# Bad files: BAD_INPUTS, 15. Each is refused before the model is loaded.


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ModelChoice) -> None:
        raise AssertionError("loaded a model")

    monkeypatch.setattr(ModelChoice, "load", fail)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("verb", ["embed", "search"])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"caf\xe9\n", "a.txt: byte 3, on line 1, is 0xe9, expected UTF-8; convert the"),
        ("a.csv", b"text,n\na,b,c\n", "a.csv: line 2 has 3 columns, expected 2 as in the header"),
        ("a.csv", b"text,text\na,b\n", "a.csv: the header has 'text' 2 times, expected once"),
        ("a.csv", b"x,y\na,b\n", "a.csv: has no column 'text', only 'x', 'y'; choose one with"),
        ("a.csv", b"", "a.csv: is empty, expected a header that names the columns"),
        ("a.tsv", b'text\n"a', "a.tsv: line 2 is no row of the table: unexpected end of data"),
        ("a.jsonl", b"{}\n", "a.jsonl: line 1 has no field 'text', only none; choose one with"),
        ("a.jsonl", b'"\\udc80"\n', "a.jsonl: line 1 has the lone surrogate '\\udc80'"),
        ("a.pdf", b"", "a.pdf: has the suffix '.pdf', expected one of txt, jsonl, csv, tsv; give"),
        ("absent.txt", None, "absent.txt: cannot be read: No such file or directory; give a file"),
        ("folder.txt", "folder", "folder.txt: cannot be read: Is a directory; give a file"),
    ],
)
def test_bad_input_file_is_one_line(
    refused: Callable[..., str],
    tmp_path: Path,
    verb: str,
    name: str,
    content: bytes | str | None,
    said: str,
) -> None:
    source = tmp_path / name
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content:
        source.mkdir()
    options = ["--input", source] if verb == "embed" else ["--corpus", source, "a query"]
    assert said in refused(verb, *options)


@pytest.mark.usefixtures("no_model")
def test_bad_output_is_one_line(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(name: str) -> str:
        return refused("embed", "a text", "--output", tmp_path / name)

    (tmp_path / "there.npy").touch()
    (tmp_path / "folder.npy").mkdir()
    assert "there.npy: exists; --overwrite replaces it, --append adds to it" in said("there.npy")
    assert "folder.npy: is a folder, expected the name of a file" in said("folder.npy")
    assert f"v.npy: there is no folder {tmp_path / 'no'}; make it first" in said("no/v.npy")
    assert "v.txt: has the suffix '.txt', expected one of .npy, .safetensors" in said("v.txt")
    source = tmp_path / "in.jsonl"
    source.write_text('"a"\n')
    assert "in.jsonl: is the input too; choose another output" in refused(
        "embed", "--input", source, "--output", source, "--overwrite"
    )
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert f"v.npy: the folder {tmp_path} cannot be written to; choose another" in said("v.npy")


def test_full_disk_is_one_line_and_leaves_the_earlier_output(
    refused: Callable[..., str],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Path,
    corpus: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "v.npy"
    wanted = ["embed", "--model", tiny, "--input", corpus, "--output", output, "--chunk-texts", "2"]
    assert run(*wanted).code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    write, calls = os.write, []

    def refuse(handle: int, content: Any) -> int:
        calls.append(handle)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, content)

    monkeypatch.setattr(os, "write", refuse)
    assert refused(*wanted, "--overwrite") == (
        f"{output}: cannot be written: No space left on device; the earlier file is unchanged, so "
        "make room or choose another output, and start again"
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_file_that_grows_is_embedded_to_the_size_it_had(
    run: Run, monkeypatch: pytest.MonkeyPatch, tiny: Path, corpus: Path, tmp_path: Path
) -> None:
    encode = Settings.encode

    def growing(self: Settings, embedder: Embedder, texts: Any) -> Any:
        with corpus.open("a") as file:
            file.write("more\n")
        return encode(self, embedder, texts)

    monkeypatch.setattr(Settings, "encode", growing)
    output = tmp_path / "v.npy"
    options = ["--input", corpus, "--output", output, "--chunk-texts", "2"]
    assert run("embed", "--model", tiny, *options).code == 0
    assert np.load(output).shape == (7, 12)


def test_texts_that_cannot_be_embedded_are_one_line(
    refused: Callable[..., str], tiny: Path, corpus: Path, tmp_path: Path
) -> None:
    assert "lone surrogate" in refused("embed", "--model", tiny, "a\udc80")
    corpus.write_text("a\nb\nc c c\n" + "d " * 20 + "\n")
    assert "counted from line 3: text 1 has 22 tokens, expected at most 16" in refused(
        *("embed", "--model", tiny, "--input", corpus, "--long-text", "error"),
        *("--chunk-texts", "2", "--output", tmp_path / "v.npy"),
    )


# search and similarity


def brute_force(embedder: Embedder, query: str, texts: list[str], **settings: Any) -> list[int]:
    vectors = embedder.encode(texts, **settings).astype(np.float64)
    asked = embedder.encode(query, prompt="query").astype(np.float64)
    scores = vectors @ asked / np.linalg.norm(vectors, axis=1) / np.linalg.norm(asked)
    return list(np.argsort(-scores.astype(np.float32), kind="stable"))


@pytest.fixture
def many(tmp_path: Path) -> tuple[Path, list[str]]:
    letters = np.random.default_rng(1).integers(0, len(LETTERS), (90, 5))
    texts = [" ".join(LETTERS[index] for index in row) for row in letters]
    path = tmp_path / "many.txt"
    path.write_text("\n".join(texts))
    return path, texts


def found(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_search_equals_brute_force(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Path,
    embedder: Embedder,
    many: tuple[Path, list[str]],
    tmp_path: Path,
) -> None:
    path, texts = many
    monkeypatch.setattr("minibert.embed.CHUNK_TEXTS", 7)
    queries = ["a b c", "7 7 7", "z"]
    wanted = ["search", "--model", tiny, "--corpus", path, *queries, "--top", "20", "--json"]
    hits = found(run(*wanted))
    for number, query in enumerate(queries):
        order = brute_force(embedder, query, texts)[:20]
        mine = hits[number * 20 : number * 20 + 20]
        assert [hit["line"] for hit in mine] == [row + 1 for row in order]
        assert [hit["text"] for hit in mine] == [texts[row] for row in order]
        assert [hit["rank"] for hit in mine] == list(range(1, 21))
        assert {hit["query"] for hit in mine} == {query}
        expected = embedder.encode(query, prompt="query") @ embedder.encode(texts)[order].T
        np.testing.assert_allclose([hit["score"] for hit in mine], expected, atol=1e-6)
    assert run("embed", "--model", tiny, "--input", path, "--output", tmp_path / "v.npy").code == 0
    assert found(run(*wanted, "--vectors", tmp_path / "v.npy")) == hits


def test_search_puts_the_earlier_of_equal_texts_first(
    run: Run, monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("minibert.embed.CHUNK_TEXTS", 2)
    path = tmp_path / "same.txt"
    path.write_text("a b\n" * 9)
    wanted = ["search", "--model", tiny, "--corpus", path, "q", "--json", "--top", "4"]
    assert [hit["line"] for hit in found(run(*wanted))] == [1, 2, 3, 4]
    path.write_text("a b\nc\n" * 60)
    monkeypatch.undo()
    lines = [hit["line"] for hit in found(run(*wanted[:-1], "120"))]
    assert lines in ([*range(1, 121, 2), *range(2, 121, 2)], [*range(2, 121, 2), *range(1, 121, 2)])


def test_search_prints_aligned_columns(run: Run, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_text('text\n"a\tb\n\x1b[31mc"\n' + "d\n" * 8 + "e" * 300 + "\n")
    out = run("search", "--model", tiny, "--corpus", path, "a").out
    lines = out.splitlines()
    assert len(lines) == 10
    assert [line[:2] for line in lines] == [f"{rank:>2}" for rank in range(1, 11)]
    assert {line[4:11].strip() for line in lines} == {f"{float(line[4:11]):z.4f}" for line in lines}
    shown = {line[13:15].strip(): line[17:] for line in lines}
    assert shown["2"] == "a b [31mc"  # on a line of its own, without the escape
    assert shown["4"] == "d"
    assert shown["12"] == "e" * 300
    both = run("search", "--model", tiny, "--corpus", path, "a", "b\nc", "--top", "2").out
    assert both.splitlines()[0] == "a"
    assert both.splitlines()[3:5] == ["", "b c"]


def test_search_cuts_texts_to_the_width_of_a_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("x" * 200 + "\n" + "語" * 200 + "\nfits\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((40, 24)))
    out = run("search", "--model", tiny, "--corpus", path, "a").out
    shown = {line.split()[2]: line for line in out.splitlines()}
    start = len("1  -0.1234  1  ")
    assert shown["1"][start:] == "x" * (39 - start) + "…"
    assert shown["2"][start:] == "語" * ((39 - start) // 2) + "…"
    assert shown["3"].endswith("  fits")


def test_search_takes_prompts_for_query_and_corpus(
    run: Run, tiny: Path, embedder: Embedder, corpus: Path
) -> None:
    wanted = ["search", "--model", tiny, "--corpus", corpus, "one", "--json", "--top", "1"]

    def score(*options: str) -> float:
        return found(run(*wanted, *options))[0]["score"]

    def expected(query_prompt: str, prompt: str | None) -> Any:
        asked = embedder.encode(["one"], prompt=query_prompt)
        return embedder.similarity(asked, embedder.encode(TEXTS, prompt=prompt)).max()

    assert score() == pytest.approx(expected("query", None), abs=1e-6)
    assert score("--query-prompt", "") == pytest.approx(expected("", None), abs=1e-6) == 1.0
    odd = score("--query-prompt", "odd", "--prompt", "odd")
    assert odd == pytest.approx(expected("odd", "odd"), abs=1e-6) == 1.0
    assert score("--prompt", "odd") == pytest.approx(expected("query", "odd"), abs=1e-6)


def test_search_takes_only_vectors_of_this_model_and_corpus(
    run: Run, refused: Callable[..., str], tiny: Path, corpus: Path, tmp_path: Path
) -> None:
    vectors = tmp_path / "v.npy"
    embed = ["embed", "--model", tiny, "--input", corpus, "--output", vectors, "--overwrite"]
    search = ["search", "--model", tiny, "--corpus", corpus, "one", "--json", "--vectors", vectors]
    assert run(*embed, "--no-normalize").code == 0
    assert len(found(run(*search))) == 7  # cosines are what they are

    assert run(*embed, "--prompt", "odd").code == 0
    assert refused(*search) == (
        f"{vectors}: holds vectors of another kind: prompt 'odd: ' there, '' here; search as they "
        "were made, or embed the corpus again"
    )
    assert len(found(run(*search, "--prompt", "odd"))) == 7
    assert len(found(run(*search, "--trust-vectors"))) == 7

    assert run(*embed, "--truncate-dim", "5").code == 0
    assert "dim 5 there, 12 here" in refused(*search)
    assert len(found(run(*search, "--truncate-dim", "5"))) == 7
    assert "holds vectors of width 5, expected 12 as of the query" in refused(
        *search, "--trust-vectors"
    )

    assert run(*embed).code == 0
    corpus.write_text("\n".join(reversed(TEXTS)))
    assert "holds the vectors of other texts than those of" in refused(*search)
    corpus.write_text("\n".join(TEXTS[:-1]))
    assert "v.npy: holds 7 vectors, but " in refused(*search)
    assert "texts.txt 6 texts; embed this corpus again" in refused(*search, "--trust-vectors")
    corpus.write_text("\n".join([*TEXTS, "one more"]))
    assert "texts.txt 8 texts; embed this corpus again" in refused(*search)
    corpus.write_text("\n".join(TEXTS))
    assert len(found(run(*search))) == 7

    (tmp_path / "v.npy.json").unlink()
    assert "does not say which model made it (v.npy.json is absent, or of another file); make" in (
        refused(*search)
    )
    assert len(found(run(*search, "--trust-vectors"))) == 7


@pytest.mark.parametrize("precision", ["int8", "binary"])
@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_search_takes_vectors_of_any_precision(
    run: Run,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tiny: Path,
    embedder: Embedder,
    many: tuple[Path, list[str]],
    tmp_path: Path,
    precision: Any,
    suffix: str,
) -> None:
    path, texts = many
    output = tmp_path / f"v{suffix}"
    monkeypatch.setattr("minibert.embed.CHUNK_TEXTS", 7)
    embed = ["embed", "--model", tiny, "--input", path, "--output", output]
    assert run(*embed, "--precision", precision).code == 0
    search = ["search", "--model", tiny, "--corpus", path, "a b c", "--json", "--vectors", output]
    outcome = run(*search, "--top", "90")
    scores = embedder.similarity(
        embedder.encode("a b c", prompt="query"), embedder.encode(texts, precision=precision)
    )[0]
    hits = found(outcome)
    assert sorted(hit["line"] for hit in hits) == list(range(1, 91))
    for hit in hits:
        assert hit["score"] == pytest.approx(scores[hit["line"] - 1], abs=1e-6)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert outcome.err == (
        f"minibert: {output}: holds {precision} vectors; scores are their cosines with the query "
        "in float32\n"
    )
    assert "dim 12 there, 5 here" in refused(*search, "--truncate-dim", "5")


def test_search_of_an_empty_corpus_finds_nothing(run: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    outcome = run("search", "--model", tiny, "--corpus", tmp_path / "empty.txt", "a")
    assert outcome == (0, "", "")


def test_search_finds_meaning_with_the_real_model(run: Run, minilm: Path, tmp_path: Path) -> None:
    path = tmp_path / "docs.txt"
    path.write_text("Bonds fell on Monday.\nThe cat sleeps all day.\nHow to bake bread\n")
    hits = found(
        run("search", "--model", minilm, "--corpus", path, "a sleepy pet", "--json", "--top", "1")
    )
    assert hits[0]["text"] == "The cat sleeps all day."


def test_similarity_prints_cosines(run: Run, tiny: Path, embedder: Embedder) -> None:
    texts = ["one", "two", "one"]
    vectors = embedder.encode(texts)
    expected = float(embedder.similarity(vectors[0], vectors[1])[0, 0])
    assert run("similarity", "--model", tiny, "one", "two") == (0, f"{expected:.4f}\n", "")
    assert run("similarity", "--model", tiny, *texts).out == f"{expected:.4f}\ttwo\n1.0000\tone\n"
    lines = found(run("similarity", "--model", tiny, *texts, "--json"))
    assert [(line["text"], line["other"]) for line in lines] == [("one", "two"), ("one", "one")]
    assert [line["score"] for line in lines] == pytest.approx([expected, 1.0], abs=1e-6)


# Measuring.


def test_bench_counts_what_it_was_given(run: Run, tiny: Path, corpus: Path) -> None:
    outcome = run("bench", tiny, "--texts", corpus, "--seconds", "0.01", "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert told["model"] == str(tiny)
    assert (told["n_texts"], told["n_distinct"]) == (7, 6)  # "one" occurs twice
    tokenizer = Tokenizer.from_pretrained(tiny)
    lengths = [min(16, len(ids) + 2) for ids in tokenizer.ids(sorted(set(TEXTS)))]
    assert told["n_tokens"] == sum(lengths)
    tree = [
        module_tree(
            BertConfig.from_file(tiny / "config.json"),
            batch=1, seq=length, pooler=False, dtype="float32",
        )
        for length in lengths
    ]  # fmt: skip
    assert told["flops"] == sum(rows[0].flops for rows in tree)
    assert len(told["round_seconds"]) == len(told["limits"]) >= 3
    assert 0 < told["query_p50_seconds"] <= told["query_p99_seconds"]
    assert told["peak_bytes"] > 20 << 20


def test_bench_says_rates_and_shares(monkeypatch: pytest.MonkeyPatch, run: Run, tiny: Path) -> None:
    found = bench.Measured(
        machine="A Processor, 2 cores; avx2", threads=2, dtype="int8", n_texts=3000,
        n_distinct=2800, n_tokens=60_000, round_seconds=(2.0, 1.5, 3.0), flops=600_000_000_000,
        limits=(6e11, 8e11, 8e11), query_p50_seconds=0.0021, query_p99_seconds=0.0034,
        peak_bytes=412_000_000,
    )  # fmt: skip
    monkeypatch.setattr(bench, "measure", lambda *_, **__: found)
    assert run("bench", tiny).out.splitlines() == [
        "machine     A Processor, 2 cores; avx2; 2 threads",
        f"model       {tiny}, int8",
        "texts       3,000, of them 2,800 distinct, of 60,000 tokens",
        "speed       1,500 texts/s, 30,000 tokens/s (median of 3 rounds; 1,000 to 2,000 texts/s)",
        "arithmetic  300 GFLOP/s, 50% of what matrix products alone reach here in int8, "
        "800 GFLOP/s",
        "one query   p50 2.10 ms, p99 3.40 ms",
        "memory      412 MB at its peak",
    ]


def test_bench_makes_up_texts_that_are_always_the_same(tiny: Path, run: Run) -> None:
    tokenizer = Tokenizer.from_pretrained(tiny)
    texts = bench.synthetic_texts(tokenizer, 400)
    assert texts == bench.synthetic_texts(tokenizer, 400)
    assert texts != bench.synthetic_texts(tokenizer, 400, seed=1)
    counts = [len(text.split()) for text in texts]
    assert np.mean(counts) == pytest.approx(bench.MEAN_WORDS, rel=0.1)
    assert {word for text in texts for word in text.split()} <= set("abcdefghijklmnopqrstuvwxyz")
    outcome = run("bench", tiny, "--seconds", "0.01", "--json")
    assert json.loads(outcome.out)["n_texts"] == bench.SYNTHETIC_TEXTS


def test_bench_refuses_a_file_without_texts(
    refused: Callable[..., str], tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").touch()
    assert refused("bench", tiny, "--texts", tmp_path / "empty.txt") == (
        f"{tmp_path / 'empty.txt'}: holds no text, expected at least one to measure with"
    )
    assert "absent.txt: " in refused("bench", tiny, "--texts", tmp_path / "absent.txt")
