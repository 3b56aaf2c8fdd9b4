"""The pages in a browser: what people see is what was computed, on a laptop and on a phone."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from browser import Shown, View, look, text_of
from report_folders import HOSTILE as RUN_HOSTILE
from report_folders import PARTS, made_run
from torch import Tensor

import minibert
from minibert import BertModel, Tokenizer
from minibert.parity.compare import compare
from minibert.parity.comparison_page import write_page
from minibert.parity.trace_page import write_trace_page
from minibert.training.report_page import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAIR = ("How old is she?", "She was born in 1931.")
TOKENS = "[CLS] how old is she ? [SEP] she was born in 1931 . [SEP]".split()
HOSTILE = (
    '</script><img src=x onerror="document.title=1">',
    "{{ 7*7 }} ${1+1} שלום 🦄 [PAD] &amp; a",
)
LAYER, HEAD, TOKEN = 2, 5, 3
FRAGMENT = f"layer={LAYER}&head={HEAD}&token={TOKEN}&measure=attention&open=weights,figures"
# Choose a head, go right with the keyboard, choose a token and a measure, open the table, and point
# at a cell of the matrix.
ACTS = (
    "document.querySelector('[data-head=\"3.7\"]').click()",
    "document.querySelector('[data-head=\"3.7\"]').dispatchEvent("
    "new KeyboardEvent('keydown', { key: 'ArrowRight' }))",
    "document.querySelectorAll('#tokens button')[9].click()",
    "document.querySelector('input[value=norm]').click()",
    "document.querySelector('#weights summary').click()",
    "const field = document.querySelector('#large .field');"
    "field.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowDown' }));"
    "field.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowDown' }));",
)
LAPTOP, PHONE = (1280, 3000), (420, 4200)


@pytest.fixture(scope="module")
def stages(minilm: Path) -> dict[str, Tensor]:
    """What the page of the pair has to show, from the trace."""
    tokenizer, model = Tokenizer.from_pretrained(minilm), BertModel.from_pretrained(minilm)
    inputs = tokenizer.pad(tokenizer.encode([PAIR[0]], [PAIR[1]]))
    with torch.no_grad(), minibert.trace(model) as found:
        model(**inputs)
    return {name: tensor[0].double() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def opened(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """Every page that is looked at, opened in two starts of the browser."""
    folder = tmp_path_factory.mktemp("pages")
    tokenizer, model = Tokenizer.from_pretrained(minilm), BertModel.from_pretrained(minilm)
    pair, hostile, broken = (folder / f"{name}.html" for name in ("pair", "hostile", "broken"))
    write_trace_page(model, tokenizer, *PAIR, pair)
    write_trace_page(model, tokenizer, *HOSTILE, hostile)
    with torch.no_grad():
        model.embeddings.token.weight.fill_(math.inf)
    write_trace_page(model, tokenizer, "a", None, broken)
    views = {
        "laptop": View(pair, FRAGMENT, *LAPTOP),
        "phone": View(pair, f"layer={LAYER}&head=mean", *PHONE),
        "hostile": View(hostile, "layer=99&head=x&token=-1&measure=__proto__&open=nothing", *PHONE),
        "broken": View(broken, "", 420, 500),
        "used": View(pair, "", 900, 900, ACTS),
    }
    found = dict(zip(views, look(list(views.values())), strict=True))
    (found["dark"],) = look([View(pair, "", *PHONE)], dark=True)
    return found


@pytest.fixture(scope="module")
def comparison(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Shown]:
    """The page about a copy that has the other GELU, for a laptop and a phone."""
    folder = tmp_path_factory.mktemp("copy")
    for path in minilm.iterdir():
        if path.is_file():
            (folder / path.name).symlink_to(path.resolve())
    values = json.loads((minilm / "config.json").read_text()) | {"hidden_act": "gelu_new"}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(values))
    page = folder / "page.html"
    write_page(compare(folder, minilm, texts=[PAIR, ("</script><b>", None)]), page)
    return look([View(page, "", 1280, 1500), View(page, "", 420, 1500)])


def numbers(shown: Shown, table: str) -> list[list[float]]:
    rows = shown.all(f"details[@id='{table}']//tbody/tr")
    return [[float(text_of(cell)) for cell in row.findall("td")] for row in rows]


def pieces(shown: Shown) -> list[str]:
    return [text_of(each) for each in shown.all("div[@id='tokens']/button/bdi")]


def close(got: Sequence[Sequence[float]], expected: Tensor, atol: float) -> bool:
    found = torch.tensor(got, dtype=torch.float64)
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=atol)


# ---- the trace


def test_page_shows_tokens_with_ids_positions_and_types(opened: dict[str, Shown]) -> None:
    shown = opened["laptop"]
    assert [text_of(span).strip() for span in shown.all("h1/span")] == list(PAIR)
    assert pieces(shown) == TOKENS
    buttons = shown.all("div[@id='tokens']/button")
    said = [button.get("title") for button in buttons]
    assert said[1] == "position 1, id 2129, token type 0"
    assert said[7] == "position 7, id 2016, token type 1"
    second = ["second" in button.get("class", "") for button in buttons]
    assert second == [False] * 7 + [True] * 7
    assert "chosen" in buttons[TOKEN].get("class", "")


def test_page_shows_the_length_of_each_part_of_the_embeddings(
    opened: dict[str, Shown], stages: dict[str, Tensor]
) -> None:
    rows = opened["laptop"].all("table[@id='norms']/tbody/tr")
    got = [[float(text_of(cell)) for cell in row.findall("td")[1:]] for row in rows]
    parts = ("token", "position", "token_type", "sum", "norm")
    expected = torch.stack([stages[f"embeddings.{part}"].norm(dim=-1) for part in parts], dim=1)
    assert close(got, expected, 1e-3)


def test_every_head_is_a_button_and_the_chosen_one_is_that_of_the_address(
    opened: dict[str, Shown],
) -> None:
    buttons = opened["laptop"].all("div[@id='thumbs']/button")
    heads = [f"{layer}.{head}" for layer in range(6) for head in [*range(12), "mean"]]
    assert [button.get("data-head") for button in buttons] == heads
    assert all("to the token itself" in button.get("aria-label", "") for button in buttons)
    pressed = [button for button in buttons if button.get("aria-pressed") == "true"]
    assert [button.get("data-head") for button in pressed] == [f"{LAYER}.{HEAD}"]
    assert [button.get("tabindex") for button in buttons].count("0") == 1
    assert text_of(opened["laptop"].one("h3[@id='head-name']")) == "Layer 2, head 5"
    assert text_of(opened["phone"].one("h3[@id='head-name']")) == "Layer 2, mean over heads"


def test_matrix_holds_the_probabilities_of_the_trace(
    opened: dict[str, Shown], stages: dict[str, Tensor]
) -> None:
    expected = stages[f"layers.{LAYER}.probabilities"][HEAD]
    got = numbers(opened["laptop"], "weights")
    assert close(got, expected, 1e-4)
    assert close([[sum(row) for row in got]], torch.ones(1, 14).double(), 1e-3)
    labels = opened["laptop"].all("div[@id='large']//div[@class='names down']/button")
    assert [text_of(label) for label in labels] == TOKENS
    assert "lit" in labels[TOKEN].get("class", "")


def test_facts_under_the_matrix_are_averages_of_it(
    opened: dict[str, Shown], stages: dict[str, Tensor]
) -> None:
    for view, p in (
        ("laptop", stages[f"layers.{LAYER}.probabilities"][HEAD]),
        ("phone", stages[f"layers.{LAYER}.probabilities"].mean(0)),
    ):
        n = len(p)
        got = {each.get("data-look"): text_of(each) for each in opened[view].all("dl/dd")}
        expected = {
            "self": sum(p[i, i] for i in range(n)) / n,
            "before": sum(p[i, i - 1] for i in range(1, n)) / (n - 1),
            "after": sum(p[i, i + 1] for i in range(n - 1)) / (n - 1),
            "first": p[:, 0].mean(),
            "separators": (p[:, 6] + p[:, 13]).mean(),
        }
        for kind, share in expected.items():
            percent = 100 * float(share)
            tolerance = 0.06 if percent < 9.9 else 0.51  # as it is rounded
            assert abs(float(got[kind].removesuffix(" %")) - percent) < tolerance, kind
        entropy = -(p * p.log2()).sum() / n
        assert got["entropy"] == f"{entropy:.2f} of at most {math.log2(n):.2f} bits"


def test_chosen_token_shows_where_it_looks(
    opened: dict[str, Shown], stages: dict[str, Tensor]
) -> None:
    shown = opened["laptop"]
    assert text_of(shown.one("h3[@id='from']")) == "From “is” at position 3:"
    shares = [float(each.get("title", "")) for each in shown.all("div[@id='shares']/button")]
    expected = stages[f"layers.{LAYER}.probabilities"][HEAD, TOKEN]
    assert close([shares], expected[None], 1e-4)


def test_map_of_layers_holds_the_measure_of_the_address(
    opened: dict[str, Shown], stages: dict[str, Tensor]
) -> None:
    shown = opened["laptop"]
    inputs = ["embeddings.norm", *(f"layers.{i}.feed_forward_norm" for i in range(5))]
    expected = torch.stack(
        [
            stages[f"layers.{i}.attention_output"].norm(dim=-1) / stages[x].norm(dim=-1)
            for i, x in enumerate(inputs)
        ]
    )
    assert close(numbers(shown, "figures"), expected, 1e-3)
    assert "‖attention_output‖ / ‖x‖" in text_of(shown.one("p[@id='measure-says']"))
    ends = shown.all("div[@id='changes']//div[@class='names ends']/span")
    means = [[float(text_of(each)) for each in ends]]
    assert close(means, expected.mean(dim=1)[None], 1e-3)


@pytest.mark.parametrize("view", ["laptop", "phone", "hostile", "dark"])
def test_maps_are_drawn_and_the_page_is_no_wider_than_its_window(
    view: str, opened: dict[str, Shown]
) -> None:
    shown = opened[view]
    assert shown.overflow <= 0
    for place in ("heads", "attention", "changes"):
        left, top, width, height = shown.places[place]
        assert min(left, top) >= 0
        assert min(width, height) > 100
        assert top + height <= shown.picture.height, "make the view higher"
        assert shown.colours_at(place) > 60, place
    corner = sum(shown.picture.getpixel((2, 2)))
    assert corner < 150 if view == "dark" else corner > 700


def test_colours_follow_the_figures(opened: dict[str, Shown], stages: dict[str, Tensor]) -> None:
    n = len(TOKENS)
    for view, weights in (
        ("laptop", stages[f"layers.{LAYER}.probabilities"][HEAD]),
        ("dark", stages["layers.0.probabilities"][0]),
    ):
        bright = torch.tensor(opened[view].cells("attention", n, n)).flatten()
        in_order = bright[weights.flatten().argsort(descending=view != "dark")]
        assert (in_order.diff() >= -3).all()  # of 765, for colours are rounded
        assert in_order[-1] - in_order[0] > 150
    measured = torch.tensor(numbers(opened["laptop"], "figures")).flatten()
    bright = torch.tensor(opened["laptop"].cells("changes", 6, n)).flatten()
    assert (bright[measured.argsort(descending=True)].diff() >= -3).all()
    assert bright.max() - bright.min() > 500  # from one end of the scale to the other


def test_what_somebody_does_there_is_shown_and_in_the_address(
    opened: dict[str, Shown], stages: dict[str, Tensor]
) -> None:
    shown = opened["used"]
    assert shown.address == "layer=3&head=8&token=9&measure=norm&open=weights"
    assert text_of(shown.one("h3[@id='head-name']")) == "Layer 3, head 8"
    assert text_of(shown.one("h3[@id='from']")) == "From “born” at position 9:"
    assert text_of(shown.one("p[@id='measure-says']")).startswith("‖y‖")
    expected = stages["layers.3.probabilities"][8]
    assert close(numbers(shown, "weights"), expected, 1e-4)
    tip = shown.one("div[@id='tip']")
    assert tip.get("hidden") is None
    assert text_of(tip) == f"how → [CLS]{expected[1, 0]:.4f}"
    rows = shown.all("div[@id='large']//div[@class='names down']/button")
    lit = [text_of(row) for row in rows if "lit" in row.get("class", "")]
    assert lit == ["how", "born"]  # pointed at, and chosen


def test_hostile_text_is_shown_as_text_and_a_wild_address_is_harmless(
    opened: dict[str, Shown],
) -> None:
    shown = opened["hostile"]
    assert [text_of(span).strip() for span in shown.all("h1/span")] == list(HOSTILE)
    assert not shown.all("img")
    assert "[PAD]" in pieces(shown)
    assert "ש" in pieces(shown)
    assert text_of(shown.one("h3[@id='head-name']")) == "Layer 0, head 0"
    assert "‖y − x‖" in text_of(shown.one("p[@id='measure-says']"))


def test_page_without_any_finite_figure_opens_and_says_so(opened: dict[str, Shown]) -> None:
    shown = opened["broken"]
    assert "Not finite" in text_of(shown.one("p[@id='broken']"))
    assert text_of(shown.one("dd[@data-look='self']")) == "not finite"
    assert shown.overflow <= 0


# ---- the comparison


def test_comparison_shows_the_verdict_and_the_faulty_stage(comparison: list[Shown]) -> None:
    for shown in comparison:
        assert text_of(shown.one("h1")) == "First difference: layers.0.activation"
        assert any("tanh GELU" in text_of(each) for each in shown.all("dd"))
        faulty = [text_of(row[0]) for row in shown.all("tr[@class='differs']")]
        assert faulty == [f"layers.{i}.activation" for i in range(6)]
        labels = shown.all("table[@id='map']/tbody/tr")
        bold = [text_of(row[0]) for row in labels[1:] if row[0].get("style")]
        assert bold == faulty
        options = [text_of(each) for each in shown.all("select/option")]
        assert options[0].startswith("1: [CLS] how old is she ?")
        assert options[1] == "2: [CLS] < / script > < b > [SEP]"


def test_comparison_draws_its_map_and_is_no_wider_than_its_window(comparison: list[Shown]) -> None:
    for shown in comparison:
        assert shown.overflow <= 0
        assert shown.colours_at("errors") > 10


# ---- the report of a run


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """The page about a run of hostile names, and about one of which hardly anything is known."""
    folder = tmp_path_factory.mktemp("reports")
    run = made_run(folder / "run")
    bare = made_run(folder / ("long" * 50), n=3, every=1)
    for name in ("doctor.json", "log.jsonl", "results.json"):
        (bare / name).unlink()
    page, empty = write_report(run), write_report(bare)
    # Point at a curve, and at the first gradient of the last part.
    acts = (
        "const svg = document.querySelector('[data-panel=Loss] svg'), at = "
        "svg.getBoundingClientRect(); svg.dispatchEvent(new PointerEvent('pointermove', "
        "{ clientX: at.right - 10, clientY: at.top + 50 }))",
        "window.said = document.getElementById('tip').textContent",
        "const map = document.getElementById('gradients'), at = map.getBoundingClientRect();"
        "map.dispatchEvent(new PointerEvent('pointermove', "
        "{ clientX: at.left + 3, clientY: at.bottom - 3 }))",
        "document.getElementById('tip').append(' after ' + window.said)",
        "document.querySelector('summary').click()",
    )
    views = {
        "laptop": View(page, "", 1280, 3400),
        "phone": View(page, "", *PHONE),
        "bare": View(empty, "", 420, 1500),
        "used": View(page, "", 420, 5000, acts),
    }
    found = dict(zip(views, look(list(views.values())), strict=True))
    (found["dark"],) = look([View(page, "", *PHONE)], dark=True)
    return found


@pytest.mark.parametrize("view", ["laptop", "phone", "dark", "bare", "used"])
def test_report_is_no_wider_than_its_window(view: str, reports: dict[str, Shown]) -> None:
    shown = reports[view]
    assert shown.overflow <= 0
    corner = sum(shown.picture.getpixel((2, 2)))
    assert corner < 150 if view == "dark" else corner > 700


@pytest.mark.parametrize("view", ["laptop", "phone", "dark"])
def test_report_draws_curves_gradients_and_confusions(view: str, reports: dict[str, Shown]) -> None:
    shown = reports[view]
    for place in ("curves", "gradients", "confusion"):
        left, top, width, height = shown.places[place]
        assert min(left, top) >= 0
        assert min(width, height) > 100
        assert top + height <= shown.picture.height, "make the view higher"
        assert shown.colours_at(place) > 30, place
    titles = [text_of(each) for each in shown.all("div[@class='panel']/h3")]
    assert titles == ["Loss", "Validation", "Learning rate", "Gradient norm"]
    n_lines = [len(panel.findall(".//{*}polyline")) for panel in shown.all("div[@class='panel']")]
    assert n_lines == [3, 2, 1, 2]
    assert len(shown.all("{*}path[@class='star']")) == 1
    axes = [text_of(each) for each in shown.all("div[@data-panel='Learning rate']//{*}text")]
    assert axes[:3] == ["0", "5e-5", "1e-4"]


def test_report_has_the_gradients_of_each_layer_in_its_colours(reports: dict[str, Shown]) -> None:
    shown = reports["laptop"]
    assert [text_of(each) for each in shown.all("div[@id='parts']/span")] == list(PARTS)
    (legend,) = shown.all("span[@class='scale']")
    assert text_of(legend) == "3.2e-93.162"  # the smallest and the largest
    bright = shown.cells("gradients", len(PARTS), 20)
    columns = list(zip(*bright, strict=True))
    assert all(list(column) == sorted(column) for column in columns)
    assert columns[0][-1] - columns[0][0] > 200


def test_report_shows_findings_and_hostile_text_as_text(reports: dict[str, Shown]) -> None:
    for view in ("laptop", "phone", "dark"):
        shown = reports[view]
        assert not shown.all("img")
        kinds = [
            each.get("class", "") for each in shown.all("section") if each.find("h3") is not None
        ]
        assert kinds == ["finding error", "finding warning", "finding info"]
        assert [text_of(each).strip() for each in shown.all("p[@id='counts']/span")] == [
            "1 error", "1 warning", "1 note",
        ]  # fmt: skip
        rows = shown.all("table[@id='worst']/tbody/tr")
        assert len(rows) == 20
        assert text_of(rows[0].findall("td")[3]).startswith(RUN_HOSTILE)
        assert any(text_of(each) == RUN_HOSTILE for each in shown.all("dd/bdi"))


def test_report_without_files_says_so(reports: dict[str, Shown]) -> None:
    shown = reports["bare"]
    said = {each.get("data-missing"): text_of(each) for each in shown.all("p")}
    assert "it is not there" in said["doctor.json"]
    assert "it is not there" in said["log.jsonl"]
    assert "the run has no results yet" in said["examples.json"]
    assert not shown.all("{*}svg")


def test_report_tells_the_figures_that_are_pointed_at(reports: dict[str, Shown]) -> None:
    shown = reports["used"]
    tip = text_of(shown.one("div[@id='tip']"))
    assert tip.startswith("head, update 11.")
    assert "after update 9" in tip
    assert "validation: 0.4667 (at 100)" in tip
    assert shown.one("details").get("open") is not None
