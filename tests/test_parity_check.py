"""The figures of parity: each holds on the real checkpoint, and each is missed when it is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from strategies import TINY, randomised
from torch import Tensor

import minibert.parity.check as checks
from minibert import BertModel, Embedder, Tokenizer, cli, ops, read_pack, record, write_pack
from minibert.errors import ParityError
from minibert.parity.check import Check, Report, check, shipped_reference
from minibert.parity.recording import Recording, describe, inputs_of
from minibert.weights import shipped

TEXTS = [("a b", None), ("c", "d a"), ("d d d a", None)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random network with a vocabulary."""
    place = tmp_path_factory.mktemp("small")
    randomised(BertModel(TINY), seed=3).save_pretrained(place)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"]
    (place / "vocab.txt").write_text("\n".join(words) + "\n")
    return place


@pytest.fixture
def reference(folder: Path) -> Recording:
    """What the original would have recorded: ours in float64, with its own errors."""
    tokenizer = Tokenizer.from_pretrained(folder)
    model = BertModel.from_pretrained(folder, dtype="float64")
    recording = record(model, inputs_of(TEXTS, tokenizer, 16))
    describe(recording, TEXTS, tokenizer)
    singles = [first for first, second in TEXTS if second is None]
    recording.vectors = torch.from_numpy(Embedder.from_pretrained(folder).encode(singles))
    return recording


def missed(report: Report) -> list[str]:
    return [row.what for row in report.checks if not row.holds]


# ---- the real checkpoint


def test_every_figure_holds_on_the_real_checkpoint(
    minilm: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["parity", "check", str(minilm), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["holds"] is True
    assert report["reference"].startswith("transformers ")
    assert report["notes"] == []
    rows = {row["what"]: row for row in report["checks"]}
    assert [(what, row["bound"]) for what, row in rows.items()] == [
        ("float32, 72 stages", 1e-5),
        ("float64, 72 stages", 1e-10),
        ("unit vectors of 3 texts", 1e-6),
        ("packed = padded, unit vectors", 1e-6),
        ("packed = padded, 78 stages", 1e-5),
        ("bfloat16, 72 stages", 2.0),
        ("bfloat16, mean cosine of hidden states", 0.9999),
        ("save, load: of 79 tensors", 0.0),
        ("save, load, save: of 90,864,192 bytes", 0.0),
    ]
    # The two are other programs: where nothing at all differed, one would be held to itself.
    assert 0 < rows["float64, 72 stages"]["measured"] < rows["float32, 72 stages"]["measured"]


def test_shipped_reference_is_small_and_of_every_stage_but_the_scores() -> None:
    path = shipped("packs/all-MiniLM-L6-v2.safetensors")
    assert path.stat().st_size < 1e6
    pack = read_pack(path)
    assert len(pack.stages) == 5 + 6 * 11 + 1
    assert pack.dtype == torch.float64
    assert pack.noise.keys() == {"float32", "bfloat16"}
    assert len(pack.texts) == len(pack.input_ids) == 4
    assert len({len(row) for row in pack.texts}) == 2  # texts, and a pair


# ---- what is wrong is missed


def test_small_network_holds(folder: Path, reference: Recording) -> None:
    report = check(folder, reference)
    assert missed(report) == []
    assert "all 9 hold" in str(report)
    assert len(str(report).splitlines()) == 3 + 1 + 9 + 3


def test_stage_that_differs_is_missed_and_named(folder: Path, reference: Recording) -> None:
    stage = reference.stages["layers.1.activation"]
    stage[0, 1, 2] += 1e-8 * max(1.0, float(stage.abs().max()))
    report = check(folder, reference)
    assert missed(report) == ["float64, 30 stages"]  # within float32's bound
    assert report.checks[1].worst == "layers.1.activation"
    assert "note: minibert parity compare names the first stage that differs" in str(report)
    assert report.checks[1].measured == pytest.approx(1e-8, rel=1e-3)
    stage[0, 1, 2] += 1e-3 * max(1.0, float(stage.abs().max()))
    assert missed(check(folder, reference)) == ["float32, 30 stages", "float64, 30 stages"]


def test_stage_that_differs_on_padding_is_not(folder: Path, reference: Recording) -> None:
    row = int((~reference.mask).any(dim=1).nonzero()[0])
    reference.stages["layers.1.activation"][row, -1] += 1.0
    assert missed(check(folder, reference)) == []


def test_vectors_that_differ_are_missed(folder: Path, reference: Recording) -> None:
    assert reference.vectors is not None
    reference.vectors[1, 2] += 2e-6
    report = check(folder, reference)
    assert missed(report) == ["unit vectors of 2 texts"]
    reference.vectors = None
    report = check(folder, reference)
    assert len(report.checks) == 8
    assert "no vectors" in str(report)


def test_packed_layout_that_differs_is_missed(
    folder: Path, reference: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ops._unfused

    def wrong(*qkv: Tensor) -> Tensor:
        return plain(*qkv) * 1.001

    monkeypatch.setattr(ops, "_unfused", wrong)
    assert missed(check(folder, reference)) == [
        "unit vectors of 2 texts",
        "packed = padded, unit vectors",
        "packed = padded, 30 stages",
    ]


def test_error_of_bfloat16_is_held_to_the_reference(folder: Path, reference: Recording) -> None:
    noise = reference.noise["bfloat16"]
    noise["pooler"] /= 2.5
    report = check(folder, reference)
    assert missed(report) == ["bfloat16, 30 stages"]
    row = next(row for row in report.checks if row.what.startswith("bfloat16"))
    assert (row.worst, row.measured) == ("pooler", pytest.approx(2.5))
    noise["pooler"] = 0.0
    assert check(folder, reference).checks[5].measured == float("inf")
    del reference.noise["bfloat16"]
    assert "error in bfloat16" in str(check(folder, reference))


def test_saving_that_changes_a_bit_is_missed(
    folder: Path, reference: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = BertModel.save_pretrained

    def careless(self: BertModel, place: Path) -> None:
        with torch.no_grad():
            weight = self.layers[0].feed_forward.up.weight
            kept = weight[0, 0].clone()
            weight[0, 0] = torch.nextafter(kept, torch.tensor(9.0))
        save(self, place)
        with torch.no_grad():
            weight[0, 0] = kept

    monkeypatch.setattr(BertModel, "save_pretrained", careless)
    report = check(folder, reference)
    assert [row.what.split(":")[0] for row in report.checks if not row.holds] == [
        "save, load",
        "save, load, save",
    ]
    assert report.checks[-2].worst == "layers.0.feed_forward.up.weight"
    assert "MISSED" in str(report)
    assert "2 of 9 missed" in str(report)


def test_figure_that_is_no_number_is_missed() -> None:
    assert not Check(what="", bound=1.0, measured=float("nan"), unit="").holds
    assert not Check(what="", bound=0.9, measured=float("nan"), unit="", at_least=True).holds
    assert Check(what="", bound=0.9, measured=0.95, unit="", at_least=True).holds
    assert not Check(what="", bound=0.9, measured=0.95, unit="").holds


# ---- the command, and what it refuses


def run(capfd: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    code = cli.main(["parity", "check", *map(str, arguments)])
    out, err = capfd.readouterr()
    return code, out + err


def test_command_takes_a_pack_and_says_what_is_missed(
    folder: Path, reference: Recording, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pack.safetensors"
    write_pack(reference, path)
    assert run(capfd, folder, "--reference", path)[0] == 0
    reference.stages["pooler"] += 1e-3
    write_pack(reference, path)
    code, said = run(capfd, folder, "--reference", path)
    assert code == 1
    assert "2 of 9 missed" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("single", "was recorded in float32, expected float64"),
        ("weights", "1 tensors are not those of"),
        ("stages", "holds no stage of the network"),
        ("shape", r"pooler has shape \(3, 3\), expected \(3, 4\)"),
        ("size", "has hidden_size 4, but minibert .* was recorded with 8"),
    ],
)
def test_reference_that_does_not_fit_is_refused(
    folder: Path, reference: Recording, change: str, said: str
) -> None:
    if change == "single":
        reference.stages = {name: tensor.float() for name, tensor in reference.stages.items()}
    elif change == "weights":
        reference.parameters["pooler.dense.bias"] = "0" * 64
    elif change == "stages":
        reference.stages = {"layers.77.q": reference.stages["layers.0.q"]}
    elif change == "shape":
        reference.stages["pooler"] = reference.stages["pooler"][:, :3]
    else:
        assert reference.config is not None
        reference.config["hidden_size"] = 8
    with pytest.raises(ParityError, match=said) as caught:
        check(folder, reference)
    assert "\n" not in str(caught.value)


def test_model_without_a_shipped_reference_is_told_what_to_give(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = run(capfd, folder)
    assert code == 2
    assert "no reference of its weights comes with minibert; give --reference PACK" in said
    code, said = run(capfd, folder, "--reference", "a", "--with", "transformers")
    assert code == 2
    assert "expected one of them" in said


def test_shipped_reference_is_found_by_name_and_by_weights(minilm: Path) -> None:
    by_name, by_weights = shipped_reference("all-MiniLM-L6-v2"), shipped_reference(minilm)
    assert by_name.parameters == by_weights.parameters
    assert checks.manifest().keys() == {"all-MiniLM-L6-v2"}
