"""The doctor in the Trainer of transformers: the callback that docs/training-failures.md shows."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.reference

PAGE = Path(__file__).resolve().parent.parent / "docs" / "training-failures.md"


def callback() -> Any:
    """The class that the page defines."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (source,) = [block for block in blocks if "TrainerCallback" in block]
    names: dict[str, Any] = {}
    exec(compile(source, str(PAGE), "exec"), names)
    return names["DoctorCallback"]()


def rows(n: int, *, seed: int) -> list[dict[str, Any]]:
    """Token ids of which one tells the label."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(n):
        label = int(torch.randint(2, (), generator=generator))
        ids = torch.randint(10, 60, (8,), generator=generator)
        ids[3] = 5 + label
        found.append({"input_ids": ids, "attention_mask": torch.ones(8).long(), "labels": label})
    return found


def trained(tmp_path: Path, *, rate: float, softmax: bool = False) -> list[str]:
    """What the doctor found in a run of the Trainer."""
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=16, initializer_range=0.1,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    if softmax:
        model.classifier = torch.nn.Sequential(torch.nn.Linear(32, 2), torch.nn.Softmax(dim=-1))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=3, per_device_train_batch_size=16,
        learning_rate=rate, eval_strategy="epoch", report_to=[], save_strategy="no",
        logging_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    doctor = callback()
    Trainer(
        model, arguments, train_dataset=rows(640, seed=0), eval_dataset=rows(64, seed=1),
        callbacks=[doctor],
    ).train()  # fmt: skip
    assert doctor.doctor.history.step == 120
    assert len(doctor.doctor.history.signals) == 120
    assert len(doctor.doctor.history.evaluations) == 3
    return [each.name for each in doctor.doctor.ranked() if each.severity != "info"]


@pytest.mark.filterwarnings("ignore")
def test_faults_of_a_trainer_run_are_found(tmp_path: Path) -> None:
    assert trained(tmp_path, rate=1.0)[0] == "rate-too-high"
    assert trained(tmp_path, rate=1e-3, softmax=True)[0] == "probabilities-as-logits"


@pytest.mark.filterwarnings("ignore")
def test_a_healthy_trainer_run_is_not_accused(tmp_path: Path) -> None:
    assert trained(tmp_path, rate=5e-4) == []
