"""Words for masks: by hand, against the head, and in the window that shows most around a mask."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import POSITIONS, VOCAB, save_small, small_config, small_tokenizer
from strategies import randomised

from minibert import MaskFiller
from minibert.errors import ConfigError, TextError
from minibert.heads import BertForMaskedLM
from minibert.prediction.settings import PredictionSettings
from minibert.prediction.windows import clearest_windows
from minibert.tokenizer import Tokenizer, window_spans

ASKED = PredictionSettings(task="masked_lm", max_length=POSITIONS, long_text="windows")
BEST = {"film": 3.0, "##s": 2.0, "paris": 1.0}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def by_hand(tokenizer: Tokenizer, **values: Any) -> MaskFiller:
    """Whatever stands around a mask, the logits of its tokens are known: `BEST`, others 0."""
    model = BertForMaskedLM(small_config()).eval()
    with torch.no_grad():
        for parameter in model.predictions.dense.parameters():
            parameter.zero_()  # so that LayerNorm gives 0, and the bias alone decides
        assert model.predictions.bias is not None
        for token, logit in BEST.items():
            model.predictions.bias[VOCAB.index(token)] = logit
    asked = PredictionSettings(
        **{"task": "masked_lm", "max_length": POSITIONS, "long_text": "windows", **values}
    )
    return MaskFiller(model, tokenizer, asked)


@pytest.fixture(scope="module")
def random(tokenizer: Tokenizer) -> MaskFiller:
    """A random network in float64, which reads windows of six tokens."""
    model = randomised(BertForMaskedLM(small_config(initializer_range=0.8)), seed=6)
    asked = PredictionSettings(
        task="masked_lm", max_length=8, long_text="windows", window_overlap=3
    )
    return MaskFiller(model.double(), tokenizer, asked)


# ---- by hand


def test_fillings_by_hand(tokenizer: Tokenizer) -> None:
    found = by_hand(tokenizer).fill("Anna [MASK], good.", top_k=3)
    logits = torch.zeros(len(VOCAB), dtype=torch.double)
    logits[:3] = torch.tensor(list(BEST.values()))
    likely = logits.softmax(dim=0)[:3].tolist()
    assert found.masks == (
        (
            ("film", pytest.approx(likely[0]), "Anna film, good."),
            ("##s", pytest.approx(likely[1]), "Annas, good."),  # goes on with the word before
            ("paris", pytest.approx(likely[2]), "Anna paris, good."),
        ),
    )
    assert found.text == "Anna film, good."
    assert (found.truncated, found.windows) == (False, 1)


def test_each_mask_is_filled_by_itself(tokenizer: Tokenizer) -> None:
    found = by_hand(tokenizer).fill("[MASK] is [MASK] ?", top_k=2)
    assert found.text == "film is film ?"
    assert [[each.text for each in mask] for mask in found.masks] == [
        ["film is [MASK] ?", "s is [MASK] ?"],
        ["[MASK] is film ?", "[MASK] iss ?"],
    ]


def test_temperature_divides_the_logits(tokenizer: Tokenizer) -> None:
    found = by_hand(tokenizer, temperature=2.0).fill("[MASK]", top_k=1)
    logits = torch.zeros(len(VOCAB), dtype=torch.double)
    logits[:3] = torch.tensor([1.5, 1.0, 0.5])
    assert found.masks[0][0].probability == pytest.approx(float(logits.softmax(dim=0)[0]))


def test_more_tokens_than_there_are_give_all(tokenizer: Tokenizer) -> None:
    (mask,) = by_hand(tokenizer).fill("[MASK]", top_k=1000).masks
    assert sorted(each.token for each in mask) == sorted(VOCAB)
    assert sum(each.probability for each in mask) == pytest.approx(1)


def test_rows_beyond_the_vocabulary_are_no_tokens(tmp_path: Path) -> None:
    config = small_config()
    wide = BertForMaskedLM(type(config)(**{**vars(config), "vocab_size": 40}))
    with torch.no_grad():
        assert wide.predictions.bias is not None
        wide.predictions.bias[30] = 50
    (mask,) = MaskFiller(wide, small_tokenizer(tmp_path), ASKED).fill("[MASK]", top_k=99).masks
    assert len(mask) == len(VOCAB)
    assert sum(each.probability for each in mask) < 1e-6  # the row has the rest


# ---- against the head


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["[MASK]", "the", "film", "anna", "."]), min_size=1, max_size=25))
def test_probabilities_are_those_of_the_head_in_the_clearest_window(
    random: MaskFiller, words: list[str]
) -> None:
    text = " ".join(["[MASK]", *words])
    found = random.fill(text, top_k=4)
    (ids,) = random.tokenizer.ids([text])
    spans = window_spans(len(ids), 6, 3)
    places = [place for place, i in enumerate(ids) if i == random.tokenizer.mask_id]
    assert len(found.masks) == len(places)
    assert found.windows == len(spans)
    for place, mask in zip(places, found.masks, strict=True):
        start, stop = spans[int(clearest_windows(spans)[place])]
        window = [random.tokenizer.cls_id, *ids[start:stop], random.tokenizer.sep_id]
        logits = random.model(torch.tensor([window])).logits[0, 1 + place - start]
        best = logits.detach().softmax(dim=0).topk(4)
        assert [each.token for each in mask] == [VOCAB[i] for i in best.indices.tolist()]
        assert [each.probability for each in mask] == pytest.approx(best.values.tolist(), abs=1e-12)


def test_stream_gives_what_the_list_gives(random: MaskFiller) -> None:
    batch = ["the [MASK]", "[MASK] is [MASK] .", "anna lives in the [MASK] film , [MASK]"] * 3
    found = list(random.stream(iter(batch), top_k=2, chunk_texts=4, batch_tokens=9))
    for one, other in zip(found, random.fill(batch, top_k=2), strict=True):
        assert one.text == other.text
        for mask, same in zip(one.masks, other.masks, strict=True):
            assert [each.probability for each in mask] == pytest.approx(
                [each.probability for each in same], abs=1e-12
            )
    assert random.fill([]) == []
    assert random.fill("[MASK]") == random.fill(["[MASK]"])[0]
    assert len(random.fill("[MASK]").masks[0]) == 5


def test_masks_that_no_window_needs_are_not_computed(random: MaskFiller) -> None:
    seen: list[int] = []
    hook = random.model.bert.register_forward_hook(
        lambda module, args, out: seen.append(len(args[0]))
    )
    random.fill("the [MASK] " + "film " * 200)
    hook.remove()
    assert seen == [8]


# ---- refusals, folders


def test_text_without_a_mask_is_refused(random: MaskFiller) -> None:
    with pytest.raises(TextError, match=r"^text 1 has no \[MASK\], put one where a word"):
        random.fill(["[MASK]", "[mask]"])


def test_mask_behind_the_cut_is_refused(tokenizer: Tokenizer) -> None:
    filler = by_hand(tokenizer, max_length=4, long_text="truncate")
    assert filler.fill("the [MASK] is").truncated
    with pytest.raises(TextError, match=r"^text 0 has a \[MASK\] as token 3, expected it among"):
        filler.fill("[MASK] film [MASK]")
    with pytest.raises(TextError, match="text 0 has 5 tokens, expected at most 4"):
        by_hand(tokenizer, max_length=4, long_text="error").fill("the film [MASK]")


def test_settings_and_counts_that_do_not_fit_are_refused(tokenizer: Tokenizer) -> None:
    model = BertForMaskedLM(small_config())
    with pytest.raises(ConfigError, match="task is 'tokens', expected masked_lm"):
        MaskFiller(model, tokenizer, PredictionSettings(task="tokens"))
    with pytest.raises(ValueError, match="got top_k 0, expected at least 1"):
        by_hand(tokenizer).fill("[MASK]", top_k=0)


def test_filler_of_a_folder(tmp_path: Path, tokenizer: Tokenizer) -> None:
    filler = MaskFiller.from_pretrained(save_small(by_hand(tokenizer).model, tmp_path))
    assert filler.settings == ASKED
    assert filler.fill("the [MASK]").text == "the film"
