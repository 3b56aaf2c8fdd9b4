"""Records small references from transformers and sentence-transformers into weights/packs/.

    .venv-reference/bin/python scripts/record_references.py

`minibert parity check` and `tests/test_recorded_references.py` compare with them, so that parity is
tested where neither library is installed.  Running it twice with the same versions gives the same
bytes.

    all-MiniLM-L6-v2.safetensors   a parity pack of the real checkpoint: a few texts, every 17th
                                   entry of every stage in float64, and the unit vectors
    heads.safetensors              9 small random networks, one for each activation and head: their
                                   weights, inputs, hidden states, pooler and logits in float64
    texts.safetensors              the real checkpoint's ids and vectors of texts in many scripts
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers import __version__ as st_version
from transformers import AutoTokenizer

from minibert.parity.folders import record_folder
from minibert.parity.pack import write_pack
from minibert.weights import manifest, resolve

PACKS = Path(__file__).resolve().parent.parent / "weights" / "packs"
MODEL = "all-MiniLM-L6-v2"

# What each small network is: head, activation, and what else is out of the ordinary.
NETWORKS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("BertModel", "gelu", {}),
    ("BertForMaskedLM", "gelu_new", {}),
    ("BertForMaskedLM", "gelu", {"tie_word_embeddings": False}),
    ("BertForNextSentencePrediction", "relu", {"type_vocab_size": 3}),
    ("BertForPreTraining", "gelu_pytorch_tanh", {"layer_norm_eps": 1e-5}),
    ("BertForSequenceClassification", "silu", {"num_labels": 3}),
    ("BertForTokenClassification", "tanh", {"num_labels": 5}),
    ("BertForQuestionAnswering", "gelu", {"num_hidden_layers": 3}),
    ("BertForMultipleChoice", "gelu", {"num_attention_heads": 1}),
)

TEXTS = (
    "A cat sleeps on the sofa.",
    "The committee postponed its decision on the new bridge until spring.",
    "",
    "   \t\n ",
    "\u0301\u0308",
    "Ça va? Naïve Straße, 12.5 % – \u201cquoted\u201d…",
    "北京是中国的首都。 東京タワー",
    "مرحبا بالعالم שלום",
    "👩\u200d💻 emoji 🎉🎉",
    "[SEP] typed [MASK] by hand [PAD]",
    "x" * 101 + " " + "y" * 100,
    "bridge " * 400,
)

# What the parity pack is of: padding, a pair, one word often; few tokens, for the pack travels with
# the package.  17 has no factor in common with 32, the width of a head: entries of all parts occur.
PACKED = (
    ("The cat sat on the mat.", None),
    ("How old is she?", "Born in 1931."),
    ("yes", None),
    ("Naïve café, 3.5 %", None),
)
STEP = 17


def main() -> None:
    PACKS.mkdir(parents=True, exist_ok=True)
    versions = {
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "sentence_transformers": st_version,
    }
    write("heads", *record_heads(), versions)
    write("texts", *record_texts(), versions)
    recording = record_folder(
        MODEL, library="transformers", dtype="float64", texts=PACKED, step=STEP
    )
    # Where it ran decides nothing, and would change the bytes.
    recording.versions = versions | {"minibert": recording.versions["minibert"]}
    path = PACKS / f"{MODEL}.safetensors"
    write_pack(recording, path)
    print(f"{path}: {len(recording.stages)} stages, {path.stat().st_size / 1e3:.0f} kB")


def write(name: str, tensors: dict[str, np.ndarray], facts: dict, versions: dict) -> None:
    """A pack: tensors, and one metadata key, for several would come out in random order."""
    path = PACKS / f"{name}.safetensors"
    text = json.dumps({"versions": versions, **facts}, ensure_ascii=False, sort_keys=True)
    save_file(dict(sorted(tensors.items())), path, metadata={"pack": text})
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size / 1e3:.0f} kB")


def record_heads() -> tuple[dict[str, np.ndarray], dict]:
    """The small networks' weights, inputs and outputs."""
    tensors, networks = {}, []
    for index, (head, activation, changes) in enumerate(NETWORKS):
        torch.manual_seed(index)
        sizes: dict[str, object] = {
            "vocab_size": 40,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 24,
            "max_position_embeddings": 12,
            "type_vocab_size": 2,
            "initializer_range": 0.2,
            "hidden_act": activation,
        }
        config = transformers.BertConfig(**{**sizes, **changes})
        # In double precision, of weights that are exact in single precision: what is compared with
        # it in either is our own error alone.
        model = getattr(transformers, head)(config).eval()
        for parameter in model.parameters():
            # New biases are 0 and LayerNorms 1 and 0, which would hide a mix-up.
            torch.nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.2)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model = model.double()
        shape = (2, 3, 9) if head == "BertForMultipleChoice" else (3, 9)
        inputs = {
            "input_ids": torch.randint(0, 40, shape),
            "attention_mask": torch.ones(shape, dtype=torch.long),
            "token_type_ids": torch.randint(0, int(config.type_vocab_size), shape),
        }
        inputs["attention_mask"][..., 1, 5:] = 0
        inputs["attention_mask"][..., -1, 3] = 0  # a hole: positions stay column numbers
        with torch.no_grad():
            out = model(**inputs, output_hidden_states=True)
        found = {f"hidden_{layer}": hidden for layer, hidden in enumerate(out.hidden_states)}
        found |= {
            name: value
            for name, value in out.items()
            if isinstance(value, torch.Tensor) and name != "loss"
        }
        for kind, group in (("weights", state), ("inputs", inputs), ("outputs", found)):
            for name, value in group.items():
                if name.endswith(("position_ids", "buffered_token_type_ids")):
                    continue
                tensors[f"{index}/{kind}/{name}"] = value.contiguous().numpy()
        networks.append({"head": head, "config": {**config.to_dict(), "dtype": None}})
    return tensors, {"networks": networks}


def record_texts() -> tuple[dict[str, np.ndarray], dict]:
    """The real checkpoint's ids and vectors."""
    folder = resolve(MODEL)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    peer = SentenceTransformer(str(folder), device="cpu")
    tensors = {"vectors": peer.encode(list(TEXTS), show_progress_bar=False)}
    ids = [
        tokenizer([text], truncation=True, max_length=256, padding=False)["input_ids"][0]
        for text in TEXTS
    ]
    sha256 = manifest()[MODEL].files["model.safetensors"].sha256
    return tensors, {"texts": list(TEXTS), "ids": ids, "model": MODEL, "sha256": sha256}


if __name__ == "__main__":
    main()
