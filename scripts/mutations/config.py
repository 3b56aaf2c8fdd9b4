"""Edits of minibert/config.py, each of which a test has to notice."""

EDITS = (
    ("layer_norm_eps: float = 1e-12", "layer_norm_eps: float = 1e-5"),
    ('hidden_act: str = "gelu"', 'hidden_act: str = "relu"'),
    ("type_vocab_size: int = 2", "type_vocab_size: int = 1"),
    ("tie_word_embeddings: bool = True", "tie_word_embeddings: bool = False"),
    ("and 0 <= value < 1)", "and 0 <= value <= 1)"),
    ("self.hidden_size % self.num_attention_heads:", "False:"),
    ("self.hidden_size // self.num_attention_heads", "self.num_attention_heads"),
    ("        if self.classifier_dropout is None:", "        if True:"),
    ("and not isinstance(value, bool) and value >= at_least", "and value >= at_least"),
    ("value >= at_least", "value > at_least"),
    ("and _is_number(value) and value > 0", "and _is_number(value) and value >= 0"),
    ("return abs(value) <= sys.float_info.max", "return True"),
    ("and value <= largest", ""),
    ('"is_decoder": ((None, False),', '"is_decoder": ((None, False, True),'),
    ('"model_type": ((None, "bert"),', '"model_type": ((None, "bert", "roberta"),'),
    ("if set(id2label) != {str(index) for index in range(len(id2label))}:", "if False:"),
    ('"position_embedding_type": ((None, "absolute"),', '"position_embedding": ((None,),'),
    ("fits = size is None or (_is_integer(size, at_least=1) and size <= largest)", "fits = True"),
    ("if self.classifier_hidden_size is None:", "if False:"),
    (
        "if self.classifier_hidden_size is None:",
        'if values.pop("classifier_hidden_size", None) and False:',
    ),
)
