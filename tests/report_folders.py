"""Folders of runs as training leaves them, made by hand, for tests of the page about a run."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from small_runs import run_of

from minibert.doctor.findings import finding
from minibert.training.saved_run import run_values

HOSTILE = '</script><img src=x onerror="document.title=1"> {{ 7*7 }} שלום 🦄'
PARTS = ("embeddings", *(f"layer {i}" for i in range(6)), "pooler", "head")


def log_lines(n: int, *, every: int) -> list[dict[str, Any]]:
    """Updates whose loss falls from 2, and evaluations whose macro-F1 rises, but for the last."""
    lines: list[dict[str, Any]] = []
    for step in range(1, n + 1):
        noise = 0.2 * math.sin(12.9898 * step)
        loss = 0.3 + 1.7 * math.exp(-3 * step / n) + noise
        lines.append(
            {
                "step": step, "epoch": 2 * (step - 1) // n, "loss": loss, "count": 8.0,
                "learning_rate": 1e-4 * (1 - step / n), "grad_norm": 1 + abs(5 * noise),
                "n_examples": 8, "n_tokens": 80, "seconds": 0.25,
            }
        )  # fmt: skip
        if step % every == 0:
            share = 1 - 1 / (1 + step // every) - 0.1 * (step == n)
            figures = {"loss": 1.2 - share, "macro_f1": share, "accuracy": 0.9 * share}
            lines.append({"step": step, "evaluation": figures})
    return lines


def looks(n: int, *, every: int = 5) -> list[dict[str, Any]]:
    """Gradients that are smaller the farther a part is from the output."""
    return [
        {
            "step": step,
            "gradients": {
                part: 10 ** (place - 8 + math.sin(step / n * 6) / 2)
                for place, part in enumerate(PARTS)
            },
            "moved": {},
            "drifted": {},
        }
        for step in range(1, n + 1, every)
    ]


FINDINGS = (
    finding("classes-unequal", "'a' is there 114 times, 'b' 10 times", step=None),
    finding(
        "rate-too-high", "the loss went from 0.4 to 2.1 in 20 updates", severity="warning", step=40,
        settings={"optimizer.learning_rate": "2e-05"},
    ),
    finding("labels-do-not-fit", f"a label is {HOSTILE}", step=1),
)  # fmt: skip


def made_run(
    folder: Path,
    *,
    n: int = 100,
    every: int = 20,
    labels: Iterable[str] = ("a", "b", HOSTILE),
    findings: Iterable[Any] = FINDINGS,
) -> Path:
    """The folder of a multiclass run that has ended."""
    folder.mkdir(parents=True, exist_ok=True)
    run = run_of("multiclass", folder.parent, model=HOSTILE, data={"validation": 0.2})
    lines = log_lines(n, every=every)
    best = (n // every - 1) * every
    figures = next(x["evaluation"] for x in lines if "evaluation" in x and x["step"] == best)
    names = list(labels)
    counts = [[9 if i == j else (i + j) % 3 for j in range(len(names))] for i in range(len(names))]
    worst = [
        {
            "place": f"train.csv: line {i}", "text": f"{HOSTILE} {'word ' * 12}{i}",
            "label": names[i % len(names)], "answer": names[0], "probability": 0.9 - i / 50,
            "loss": 4.0 - i / 10,
        }
        for i in range(20)
    ]  # fmt: skip
    confusion = {
        "labels": names, "counts": counts, "others": [0] * len(names), "n_labels": len(names),
    }  # fmt: skip
    write(folder / "run.json", {**run_values(run, folder), "metric": "macro_f1", "updates": n})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(
        folder / "doctor.json",
        {
            "findings": [each.to_dict() for each in findings],
            "facts": {"train: examples": "480", "labels of train": HOSTILE},
            "looks": looks(n),
        },
    )
    results = {"macro_f1": figures["macro_f1"], "roc_auc": math.nan}
    write(folder / "results.json", {"best_step": best, "validation": results, "test": results})
    write(folder / "examples.json", {"confusion": confusion, "worst": worst})
    return folder


def write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")
