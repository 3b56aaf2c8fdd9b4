"""minibert: a BERT from scratch in plain PyTorch, to read, to verify against and to embed with."""

from importlib import import_module
from typing import TYPE_CHECKING

# Where each public name lives. Importing one imports its module, and no more: `import minibert`
# itself is free.
_HOME = {
    "BertConfig": "config",
    "Padded": "layout",
    "Packed": "layout",
    "BertModel": "model",
    "explicit_attention": "model",
    "set_attention": "model",
    "BertForMaskedLM": "heads",
    "BertForMultipleChoice": "heads",
    "BertForNextSentencePrediction": "heads",
    "BertForPreTraining": "heads",
    "BertForQuestionAnswering": "heads",
    "BertForSequenceClassification": "heads",
    "BertForTokenClassification": "heads",
    "LoadReport": "checkpoint",
    "Tokenizer": "tokenizer",
    "Embedder": "embed",
    "trace": "parity.trace",
    "record": "parity.recording",
    "capture": "parity.recording",
    "compare": "parity.compare",
    "read_pack": "parity.pack",
    "write_pack": "parity.pack",
    "PredictionSettings": "prediction.settings",
    "TextClassifier": "prediction.classifier",
    "TextScorer": "prediction.scorer",
    "TokenTagger": "prediction.tagger",
    "QuestionAnswerer": "prediction.answerer",
    "MaskFiller": "prediction.filler",
    "Doctor": "doctor.live",
    "RunConfig": "training.run_config",
    "train": "training.run",
    "MinibertError": "errors",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"

if TYPE_CHECKING:
    from minibert.checkpoint import LoadReport as LoadReport
    from minibert.config import BertConfig as BertConfig
    from minibert.doctor.live import Doctor as Doctor
    from minibert.embed import Embedder as Embedder
    from minibert.errors import MinibertError as MinibertError
    from minibert.heads import BertForMaskedLM as BertForMaskedLM
    from minibert.heads import BertForMultipleChoice as BertForMultipleChoice
    from minibert.heads import BertForNextSentencePrediction as BertForNextSentencePrediction
    from minibert.heads import BertForPreTraining as BertForPreTraining
    from minibert.heads import BertForQuestionAnswering as BertForQuestionAnswering
    from minibert.heads import BertForSequenceClassification as BertForSequenceClassification
    from minibert.heads import BertForTokenClassification as BertForTokenClassification
    from minibert.layout import Packed as Packed
    from minibert.layout import Padded as Padded
    from minibert.model import BertModel as BertModel
    from minibert.model import explicit_attention as explicit_attention
    from minibert.model import set_attention as set_attention
    from minibert.parity.compare import compare as compare
    from minibert.parity.pack import read_pack as read_pack
    from minibert.parity.pack import write_pack as write_pack
    from minibert.parity.recording import capture as capture
    from minibert.parity.recording import record as record
    from minibert.parity.trace import trace as trace
    from minibert.prediction.answerer import QuestionAnswerer as QuestionAnswerer
    from minibert.prediction.classifier import TextClassifier as TextClassifier
    from minibert.prediction.filler import MaskFiller as MaskFiller
    from minibert.prediction.scorer import TextScorer as TextScorer
    from minibert.prediction.settings import PredictionSettings as PredictionSettings
    from minibert.prediction.tagger import TokenTagger as TokenTagger
    from minibert.tokenizer import Tokenizer as Tokenizer
    from minibert.training.run import train as train
    from minibert.training.run_config import RunConfig as RunConfig


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'minibert' has no attribute {name!r}")
    return getattr(import_module(f"minibert.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
