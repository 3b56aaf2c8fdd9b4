"""Task heads over `BertModel`, by composition: what stands behind the encoder for each task.

Each gives logits, never probabilities, and computes no loss.  Encoder arguments are those of
`BertModel.forward`; in shapes, `*tokens` is `(batch, seq)`, or `(tokens,)` with a packed layout.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minibert import checkpoint, ops
from minibert.config import BertConfig
from minibert.layout import Layout
from minibert.model import BertModel, BertOutput


class MaskedLMOutput(NamedTuple):
    logits: Tensor  # (*tokens, vocab)


class NextSentenceOutput(NamedTuple):
    logits: Tensor  # (batch, 2): 0 "the second text follows the first", 1 "it does not"


class PreTrainingOutput(NamedTuple):
    prediction_logits: Tensor  # (*tokens, vocab)
    seq_relationship_logits: Tensor  # (batch, 2), as in NextSentenceOutput


class ClassifierOutput(NamedTuple):
    logits: Tensor  # (batch, labels); of tokens (*tokens, labels); multiple choice (batch, choices)


class QuestionAnsweringOutput(NamedTuple):
    start_logits: Tensor  # (*tokens,)
    end_logits: Tensor  # (*tokens,)


class Predictions(nn.Module):
    """Which word stands here: logits = LayerNorm(activation(x W + b)) Eᵀ + bias.

    E is the embedding table itself ("tied"), unless the configuration says otherwise: then the
    decoder has a weight, and a bias, of its own.
    Source: google-research/bert `get_masked_lm_output`.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = ops.Linear(config.hidden_size, config.hidden_size)
        self.activation = ops.ACTIVATIONS[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = None
        self.bias = None
        if config.tie_word_embeddings:
            self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        else:
            self.decoder = ops.Linear(config.hidden_size, config.vocab_size)

    def forward(
        self, hidden: Float[Tensor, "*tokens hidden"], embeddings: Float[Tensor, "vocab hidden"]
    ) -> Float[Tensor, "*tokens vocab"]:
        transformed = self.norm(self.activation(self.dense(hidden)))
        if self.decoder is None:
            return ops.linear(transformed, embeddings, self.bias)
        return self.decoder(transformed)


class HiddenClassifier(nn.Module):
    """Labels by way of a hidden layer: logits = dropout(tanh(x W + b)) V + c.

    It stands where BERT's classifier is one linear map: behind the pooler, or on each token.
    `transformers` has no such head on a BERT, so this one opens in minibert only.

    Source: fairseq `RobertaClassificationHead`; Liu et al. 2019, https://arxiv.org/abs/1907.11692.
    Differs: W may have any width; RoBERTa's head is on the first token, in place of a pooler.
    """

    def __init__(self, config: BertConfig, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.hidden_size, width)
        self.dropout = nn.Dropout(config.head_dropout)
        self.output = nn.Linear(width, config.num_labels)

    def forward(self, below: Float[Tensor, "*n hidden"]) -> Float[Tensor, "*n labels"]:
        return self.output(self.dropout(torch.tanh(self.hidden(below))))


def last_linear(model: checkpoint.Pretrained) -> nn.Linear:
    """The linear map that a classifier ends with, and so gives its logits.

    Raises: TypeError for a network without a classifier.
    """
    last = getattr(model, "classifier", None)
    if isinstance(last, HiddenClassifier):
        last = last.output
    if not isinstance(last, nn.Linear):
        raise TypeError(f"{type(model).__name__} has no classifier, expected a network with one")
    return last


def _classifier(config: BertConfig) -> nn.Linear | HiddenClassifier:
    """What is put on the pooler or on each token, initialised: one linear map, or two."""
    width = config.classifier_hidden_size
    made: nn.Linear | HiddenClassifier
    if width is None:
        made = nn.Linear(config.hidden_size, config.num_labels)
    else:
        made = HiddenClassifier(config, width)
    checkpoint.initialise(made, std=config.initializer_range)
    return made


class BertForMaskedLM(checkpoint.Pretrained):
    """Predicts the word at each position."""

    fresh = ("predictions",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(config)
        self.bert.pooler = None
        self.predictions = Predictions(config)
        checkpoint.initialise(self.predictions, std=config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        layout: Layout | None = None,
    ) -> MaskedLMOutput:
        out = self.bert(input_ids, attention_mask, token_type_ids, layout=layout)
        embeddings = self.bert.embeddings.token.weight
        return MaskedLMOutput(self.predictions(out.last_hidden_state, embeddings))


class BertForNextSentencePrediction(checkpoint.Pretrained):
    """Tells whether the second text of a pair follows the first."""

    fresh = ("next_sentence", "bert.pooler")

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(config)
        self.next_sentence = nn.Linear(config.hidden_size, 2)
        checkpoint.initialise(self.next_sentence, std=config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        layout: Layout | None = None,
    ) -> NextSentenceOutput:
        out = self.bert(input_ids, attention_mask, token_type_ids, layout=layout)
        return NextSentenceOutput(self.next_sentence(out.pooler_output))


class BertForPreTraining(checkpoint.Pretrained):
    """Both tasks that BERT was pretrained on: the masked words and the next sentence."""

    fresh = ("predictions", "next_sentence", "bert.pooler")

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(config)
        self.predictions = Predictions(config)
        self.next_sentence = nn.Linear(config.hidden_size, 2)
        checkpoint.initialise(self.predictions, std=config.initializer_range)
        checkpoint.initialise(self.next_sentence, std=config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        layout: Layout | None = None,
    ) -> PreTrainingOutput:
        out = self.bert(input_ids, attention_mask, token_type_ids, layout=layout)
        embeddings = self.bert.embeddings.token.weight
        return PreTrainingOutput(
            self.predictions(out.last_hidden_state, embeddings),
            self.next_sentence(out.pooler_output),
        )


class BertForSequenceClassification(checkpoint.Pretrained):
    """Labels, or scores, a text or a pair of texts: dropout and one linear map of the pooler.

    With `classifier_hidden_size` in its configuration the map is a `HiddenClassifier`.
    """

    fresh = ("classifier", "bert.pooler")

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = _classifier(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        layout: Layout | None = None,
    ) -> ClassifierOutput:
        # Where it is trained, for there it is felt most, and its stages are not looked at.
        return self.read(
            self.bert(
                input_ids, attention_mask, token_type_ids, layout=layout, only_first=self.training
            )
        )

    def read(self, encoded: BertOutput) -> ClassifierOutput:
        """What the head makes of what the encoder gives."""
        return ClassifierOutput(self.classifier(self.dropout(encoded.pooler_output)))


class BertForTokenClassification(checkpoint.Pretrained):
    """Labels each token: dropout and one linear map of its hidden state.

    With `classifier_hidden_size` in its configuration the map is a `HiddenClassifier`.
    """

    fresh = ("classifier",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(config)
        self.bert.pooler = None
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = _classifier(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        layout: Layout | None = None,
    ) -> ClassifierOutput:
        return self.read(self.bert(input_ids, attention_mask, token_type_ids, layout=layout))

    def read(self, encoded: BertOutput) -> ClassifierOutput:
        """What the head makes of what the encoder gives."""
        return ClassifierOutput(self.classifier(self.dropout(encoded.last_hidden_state)))


class BertForQuestionAnswering(checkpoint.Pretrained):
    """Finds where an answer starts and ends: two scores for each token."""

    fresh = ("spans",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        # transformers makes as many outputs here as there are labels, so a saved file says two.
        self.config = config if config.num_labels == 2 else config.with_labels(2)
        self.bert = BertModel(config)
        self.bert.pooler = None
        self.spans = nn.Linear(config.hidden_size, 2)
        checkpoint.initialise(self.spans, std=config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        layout: Layout | None = None,
    ) -> QuestionAnsweringOutput:
        return self.read(self.bert(input_ids, attention_mask, token_type_ids, layout=layout))

    def read(self, encoded: BertOutput) -> QuestionAnsweringOutput:
        """What the head makes of what the encoder gives."""
        start, end = self.spans(encoded.last_hidden_state).unbind(dim=-1)
        return QuestionAnsweringOutput(start, end)


class BertForMultipleChoice(checkpoint.Pretrained):
    """Chooses among several texts: each is scored alone, and the scores stand side by side."""

    fresh = ("classifier", "bert.pooler")

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.hidden_size, 1)
        checkpoint.initialise(self.classifier, std=config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> ClassifierOutput:
        """Scores of shape `(batch, choices)`; every input has the shape `(batch, choices, seq)`."""
        if input_ids.ndim != 3:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)}, expected (batch, choices, seq)"
            )
        rows = [
            None if x is None else x.flatten(0, 1)
            for x in (input_ids, attention_mask, token_type_ids)
        ]
        out = self.bert(rows[0], rows[1], rows[2])
        scores = self.classifier(self.dropout(out.pooler_output))  # (batch · choices, 1)
        return ClassifierOutput(scores.view(input_ids.shape[:2]))
