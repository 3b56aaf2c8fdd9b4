"""The benchmark of scripts/: what it tells of figures, the batches of its peers, its processes."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from minibert import BertConfig, BertModel, Embedder
from minibert.machine import this_machine

ROOT = Path(__file__).resolve().parent.parent


class Scripts(NamedTuple):
    """The modules of the benchmark."""

    driver: Any
    peers: Any
    process: Any
    report: Any
    texts: Any


@pytest.fixture(scope="module")
def scripts() -> Iterator[Scripts]:
    sys.path.insert(0, str(ROOT / "scripts"))
    import benchmark
    import benchmark_peers
    import benchmark_process
    import benchmark_report
    import benchmark_texts

    yield Scripts(benchmark, benchmark_peers, benchmark_process, benchmark_report, benchmark_texts)
    sys.path.remove(str(ROOT / "scripts"))


# Ratios.


def test_ratio_is_the_median_of_the_rounds_ratios_and_not_of_their_times(scripts: Scripts) -> None:
    slow, fast = [2.0, 20.0, 6.3], [1.0, 10.0, 3.0]  # a machine that drifts tenfold
    found = scripts.report.ratios(slow, fast)
    assert found == pytest.approx([2.0, 2.0, 2.1])
    assert scripts.report.told(found) == "2.00 (2.00 to 2.10)"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.5, 1.5], "too few rounds (1.50 to 1.50)"),
        ([1.0, 1.0, 1.0], "1.00 (1.00 to 1.00)"),
        # The middle half of five is from the second to the fourth: 0.19 of 1.00, and 0.22.
        ([0.5, 0.9, 1.0, 1.09, 1.9], "1.00 (0.50 to 1.90)"),
        ([0.5, 0.89, 1.0, 1.11, 1.9], "spread too large (0.50 to 1.90)"),
        ([1.0, 2.0, 3.0], "spread too large (1.00 to 3.00)"),
    ],
)
def test_ratio_whose_rounds_disagree_is_not_told(
    scripts: Scripts, values: Sequence[float], said: str
) -> None:
    assert scripts.report.told(values) == said


def contender(name: str, bits: int, *seconds: float, ours: bool = False) -> dict[str, Any]:
    return {
        "name": name, "library": name.split()[0], "bits": bits, "ours": ours, "settings": {},
        "seconds": list(seconds), "peak_bytes": 300_000_000, "error": 1.25e-3,
        "versions": {name.split()[0]: "1.0"},
    }  # fmt: skip


def bulk(*contenders: dict[str, Any]) -> dict[str, Any]:
    rounds = len(contenders[0]["seconds"])
    return {
        "workload": "W1",
        "about": {
            "title": "sentences", "machine": "A Processor", "threads": 2, "rounds": rounds,
            "n_texts": 1200, "n_distinct": 1100, "n_tokens": 40_000, "flops": 600_000_000_000,
        },
        "limits": {"32": [1e12] * rounds, "16": [2e12] * rounds, "8": [4e12] * rounds},
        "contenders": list(contenders),
    }  # fmt: skip


OURS = contender("minibert bf16", 16, 1.0, 1.0, 1.2, ours=True)
PEERS = (
    contender("sentence-transformers", 32, 6.0, 6.0, 7.2),
    contender("quick fp32", 32, 1.5, 1.5, 1.8),
    contender("slow bf16", 16, 3.0, 3.0, 3.6),
    contender("best bf16", 16, 2.0, 2.0, 2.4),
    contender("small int8", 8, 0.5, 0.5, 0.6),
)


def test_ours_is_compared_with_the_best_of_its_bits_and_with_a_better_one_that_is_more_exact(
    scripts: Scripts,
) -> None:
    chosen = [(peer["name"], why) for peer, why in scripts.report.rivals(OURS, [OURS, *PEERS])]
    assert chosen == [
        ("best bf16", "the best in 16 bits"),
        ("quick fp32", "the best in 16 bits or more"),
        ("sentence-transformers", "as it comes"),
    ]
    in_8 = {**OURS, "name": "minibert int8", "bits": 8}
    assert [peer["name"] for peer, _ in scripts.report.rivals(in_8, [in_8, *PEERS])] == [
        "small int8", "best bf16", "sentence-transformers",
    ]  # fmt: skip
    in_32 = {**OURS, "name": "minibert fp32", "bits": 32}
    assert [peer["name"] for peer, _ in scripts.report.rivals(in_32, [in_32, *PEERS])] == [
        "quick fp32", "sentence-transformers",
    ]  # fmt: skip


def test_tables_say_rates_shares_and_ratios(scripts: Scripts) -> None:
    text = scripts.report.report(bulk(OURS, *PEERS))
    lines = text.splitlines()
    # 0.6 TFLOP in a second, of 2 TFLOP/s: 30 %.
    assert "| **minibert bf16** | 16 | 1,200 | 30% (25% to 30%) | 1.3e-03 | 300 MB | |" in lines, (
        text
    )
    assert "| minibert bf16 | best bf16, the best in 16 bits | 2.00 (2.00 to 2.00) |" in lines
    assert "| minibert bf16 | sentence-transformers, as it comes | 6.00 (6.00 to 6.00) |" in lines
    assert "0.6 TFLOP" in text
    order = [line.split(" | ")[0].strip("|* ") for line in lines if " MB |" in line]
    assert order == [
        "quick fp32", "sentence-transformers", "minibert bf16", "best bf16", "slow bf16",
        "small int8",
    ]  # fmt: skip


def test_page_keeps_what_was_not_measured_now(scripts: Scripts, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# Speed\n\n<!-- benchmark -->\n\nold\n\n<!-- end of benchmark -->\n\nbelow\n")
    scripts.report.write([bulk(OURS, *PEERS)], tmp_path)
    scripts.report.write([{**bulk(OURS, PEERS[0]), "workload": "W2"}], tmp_path)
    text = page.read_text()
    assert text.startswith("# Speed\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert text.index("### W1: sentences") < text.index("### W2: sentences")
    assert list(json.loads((tmp_path / "performance.json").read_text())) == ["W1", "W2"]
    scripts.report.write([{**bulk(OURS, PEERS[1]), "workload": "W2"}], tmp_path)
    parts = page.read_text().split("### W2")
    assert "small int8" in parts[0]
    assert "quick fp32" in parts[1]
    assert "sentence-transformers" not in parts[1]
    with Image.open(tmp_path / "performance.png") as picture:
        assert picture.width > picture.height / 2
        assert len(set(picture.convert("RGB").get_flattened_data())) > 3


def test_page_of_the_repository_is_what_its_figures_make(scripts: Scripts) -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    kept = json.loads((ROOT / "docs" / "performance.json").read_text(encoding="utf-8"))
    for figures in kept.values():
        assert scripts.report.report(figures) in page, figures["workload"]


# Texts and batches.


def test_grown_texts_all_differ_and_are_always_the_same(scripts: Scripts) -> None:
    texts = ["a b", "c", "a b", "d e f", ""]
    found = list(scripts.texts.grown(texts, 12))
    assert len(set(found)) == 12
    assert found[:4] == ["a b", "c", "d e f", ""]
    assert found == list(islice(scripts.texts.grown(texts, 14), 12))
    assert {word for text in found for word in text.split()} <= set("abcdef")


def test_batches_are_sorted_and_fit_the_budget_with_their_padding(scripts: Scripts) -> None:
    ids = [[1] * n for n in (3, 9, 2, 40, 9, 1, 8)]
    batches = list(scripts.peers._batches(ids, 20))
    assert batches == [[3], [1, 4], [6, 0], [2, 5]]
    assert list(scripts.peers._batches([], 20)) == []


def test_padding_is_hidden(scripts: Scripts) -> None:
    tokens, mask = scripts.peers.padded([[5, 6, 7], [8]], multiple=4)
    assert tokens.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("streams", [1, 2])
def test_vectors_come_back_in_the_order_of_the_texts(
    scripts: Scripts, minilm: Path, streams: int
) -> None:
    model = scripts.peers.Model(minilm, None, 6, 2)
    settings = {"streams": streams, "budget": 12}
    encode = scripts.peers.batched(
        model, settings, lambda ids: np.array([[len(each), each[1]] for each in ids], np.float32)
    )
    texts = ["cats sleep", "cats", "the dogs sleep and sleep and sleep", "dogs", "the cats sleep"]
    found = encode(texts)
    assert found[:, 0].tolist() == [4, 3, 6, 3, 5]  # cut at six tokens
    assert found[0, 1] == found[1, 1] != found[3, 1]
    assert found[2, 1] == found[4, 1]


def test_ranks_share_their_mean_where_values_are_equal(scripts: Scripts) -> None:
    assert scripts.driver.ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert scripts.driver.correlation(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == (
        pytest.approx(-1.0)
    )


# The command.


def test_settings_for_one_text_have_one_stream_and_may_have_fewer_threads(scripts: Scripts) -> None:
    lists = {"streams": (2, 1), "budget": (1024, 512)}
    assert scripts.process._for_one_text(lists, 4) == {
        "streams": (1,), "budget": (1024,), "threads": (4, 1, 2, 3),
    }  # fmt: skip
    assert scripts.process._for_one_text({}, 4) == {}


def test_every_contender_has_a_name_of_its_own_and_known_packages(scripts: Scripts) -> None:
    names = [each.name for each in scripts.peers.CONTENDERS]
    assert len(set(names)) == len(names)
    for each in scripts.peers.CONTENDERS:
        assert each.library in scripts.peers.PACKAGES
        assert each.bits in scripts.report.CLASSES
        assert all(values for values in each.settings.values())
    assert scripts.report.DEFAULT_PEER in names


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--workloads", "W9"], "got workload 'W9', expected some of W1,W2,"),
        (["--workloads", "W4", "--contenders", "no such"], "no contender 'no such'; there are ['m"),
        (
            ["--workloads", "W4", "--python", "pandas=/usr/bin/python3"],
            "got 'pandas', expected one",
        ),
        (["--workloads", "W4", "--rounds", "0"], "got --rounds 0, expected at least 1"),
        (["--workloads", "W2,W4"], "W2 need --data, or MINIBERT_DATA, with the folders sst2"),
    ],
)
def test_wrong_use_is_told(
    scripts: Scripts,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    said: str,
) -> None:
    monkeypatch.delenv("MINIBERT_DATA", raising=False)
    with pytest.raises(SystemExit):
        scripts.driver.parse_arguments(args)
    assert said in capsys.readouterr().err


def test_interpreter_of_all_peers_yields_to_that_of_one(scripts: Scripts) -> None:
    given = ["--python", "openvino=own", "--python", "theirs", "--workloads", "W4"]
    pythons = scripts.driver.parse_arguments(given).pythons
    assert pythons["openvino"] == "own"
    assert pythons["ctranslate2"] == "theirs"
    assert "minibert" not in pythons


@pytest.fixture(scope="module")
def small(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one narrow layer with the real tokenizer."""
    folder = tmp_path_factory.mktemp("small")
    real = Embedder.from_pretrained(minilm)
    config = BertConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48
    )
    Embedder(BertModel(config), real.tokenizer, real.recipe).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_one_question_is_measured_in_processes_of_their_own(small: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [
            sys.executable, "scripts/benchmark.py", "--workloads", "W4", "--model", str(small),
            "--contenders", "minibert fp32,minibert bf16 by PyTorch", "--rounds", "3", "--cache",
            str(tmp_path),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert str(this_machine()) in result.stdout
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| **")]
    assert {row[0] for row in rows} == {"| **minibert fp32**", "| **minibert bf16 by PyTorch**"}
    errors = {row[0].strip("| *"): float(row[4]) for row in rows}
    assert errors["minibert fp32"] < 1e-6 < errors["minibert bf16 by PyTorch"] < 0.05


@pytest.mark.slow
def test_process_that_ends_is_told_in_one_line(scripts: Scripts, small: Path) -> None:
    job = {
        "role": "contender", "contender": "minibert fp32", "folder": str(small / "absent"),
        "max_length": 64,
    }  # fmt: skip
    with (
        pytest.raises(SystemExit, match=r"error: minibert fp32 ended with exit status 1: .*absent"),
        scripts.process.Process(sys.executable, job, 1) as process,
    ):
        process.ask("load", settings={})


@pytest.mark.slow
@pytest.mark.data
def test_growing_corpus_is_streamed_whole(
    scripts: Scripts, small: Path, tmp_path: Path, data: Path
) -> None:
    file = tmp_path / "corpus.txt"
    file.write_text("\n".join(scripts.texts.grown(scripts.texts.sentences(data), 5000)))
    job = {"role": "contender", "contender": "minibert fp32", "folder": str(small)}
    with scripts.process.Process(sys.executable, {**job, "max_length": 0}, 1) as process:
        assert process.ask("stream", path=str(file))["n_texts"] == 5000


@pytest.mark.data
def test_texts_of_the_workloads_are_as_many_as_they_say(scripts: Scripts, data: Path) -> None:
    texts = scripts.texts.sentences(data)
    assert len(texts) == 2000
    others = scripts.texts.calibration_sentences(data)
    assert 200 <= len(others) <= 400
    assert not set(texts) & set(others)
    reviews = scripts.texts.reviews(data)
    assert len(reviews) == len(set(reviews)) == 300
    assert len(scripts.texts.judged_pairs(data).scores) == 1500
