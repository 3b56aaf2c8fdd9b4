"""Columns of tables, and what each is taken for."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from minibert.training.roles import Roles, described, find_roles
from minibert.training.rows import Cells, Columns, Place, Row, read_rows
from minibert.training.survey import Survey, survey

WORDS = "good fine nice bad poor sad film the a is was in it so they went home then".split()


def sentence(seed: int, low: int = 8, high: int = 12) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choices(WORDS, k=chosen.randint(low, high)))


def short(seed: int) -> str:
    return sentence(seed, 2, 2)


def other(seed: int) -> str:
    return sentence(1000 + seed)


def table(n: int = 40, /, **columns: Callable[[int], Any] | list[Any]) -> Survey:
    """A survey of rows whose columns are made by functions, or repeat lists."""
    return survey(read_rows([
        {
            key: made(i) if callable(made) else made[i % len(made)]
            for key, made in columns.items()
        }
        for i in range(n)
    ]))  # fmt: skip


def bare(*columns: Callable[[int], Any] | list[Any], n: int = 40) -> Survey:
    """The same without a header: columns have numbers."""
    numbered = Columns(None, len(columns))
    return survey(
        Row(
            Cells([m(i) if callable(m) else m[i % len(m)] for m in columns], numbered),
            Place("f", i),
        )
        for i in range(n)
    )


def roles(found: Roles) -> tuple[list[str], list[str], str | None]:
    return found.texts, found.labels, found.id


AB = ["a", "b"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (table(text=sentence, label=AB), (["text"], ["label"], None)),
        (bare(AB, sentence), (["2"], ["1"], None)),
        (bare(sentence, lambda i: f"id{i}", AB), (["1"], ["3"], "2")),
        (table(title=other, review=short, label=AB), (["review"], ["label"], None)),
        (table(title=short, other=sentence, label=AB), (["other"], ["label"], None)),
        (table(airlineSentiment=AB, negativereason=list("xyz"), text=sentence),
         (["text"], ["airlineSentiment"], None)),
        (table(text=sentence, sentiment_confidence=lambda i: i / 9, sentiment=AB),
         (["text"], ["sentiment"], None)),
        (table(text=sentence, label_id=[0, 1], kind=list("abc")), (["text"], ["label_id"], None)),
        (table(text=sentence, label1=AB, gold_label=AB), (["text"], ["gold_label"], None)),
        (table(text=sentence, target=other, kind=AB), (["text"], ["kind"], None)),
        (table(text=sentence, rating=[1, 2], label=AB), (["text"], ["label"], None)),
        (table(text=sentence, lists=[["a"], ["b"]], kind=AB), (["text"], ["lists"], None)),
        (table(text=sentence, x=[0, 1], w=[1, 0, 0], kind=AB), (["text"], ["x", "w"], None)),
        (table(text=sentence, x=[0, 1], kind=["a"]), (["text"], ["x"], None)),
        (table(text=sentence, many=list("abcd"), few=AB), (["text"], ["few"], None)),
        (table(text=sentence, author=AB, kind=list("abcd")), (["text"], ["kind"], None)),
        (table(text=sentence, note=["x", *[""] * 9, "y", *[""] * 9], kind=list("abcd")),
         (["text"], ["kind"], None)),
        (table(text=sentence, year=range(2000, 2040), price=lambda i: i / 7),
         (["text"], ["price"], "year")),
        (table(text=sentence, price=lambda i: 7 * i), (["text"], ["price"], None)),
        (table(text=sentence, price=lambda i: i), (["text"], ["price"], None)),
        (table(text=sentence, id=lambda i: i), (["text"], [], "id")),
        (table(text=sentence, word=lambda i: f"w{i}"), (["text"], ["word"], None)),
        (table(name=lambda i: f"n{i % 30}", nation=AB), (["name"], ["nation"], None)),
        (table(a=range(40), b=[1, 2]), ([], ["b"], "a")),
        (table(text=sentence, kind=AB, flag=[0, 1]), (["text"], ["kind"], None)),
        (table(blurb=short, label=[sentence(1), sentence(2)]), (["blurb"], ["label"], None)),
        (table(code=str, name=lambda i: f"n{i % 30}", nation=AB), (["name"], ["nation"], "code")),
        (table(index=range(5), text=short, label=AB), (["text"], ["label"], None)),
    ],
)  # fmt: skip
def test_roles_are_read_off_names_and_values(
    found: Survey, expected: tuple[list[str], list[str], str | None]
) -> None:
    assert roles(find_roles(found)) == expected


@pytest.mark.parametrize(
    ("found", "texts"),
    [
        (bare([1.5, 2, 3], sentence, other), ["2", "3"]),
        (bare(other, AB, sentence), ["1", "3"]),
        (bare(AB, sentence, lambda i: sentence(i, 60, 70)), ["3"]),
        (bare(AB, sentence, short), ["2"]),
        (bare(AB, lambda i: sentence(i, 4, 5), short), ["2"]),
        (bare(AB, sentence, lambda i: sentence(i % 3)), ["2"]),
        (table(b=other, question1=sentence, question2=other, label=AB), ["question1", "question2"]),
        (table(s_b=other, s_a=sentence, parse=lambda i: sentence(i, 20, 30), y=AB), ["s_a", "s_b"]),
        (table(hypothesis=other, premise=sentence, label=AB), ["premise", "hypothesis"]),
        (table(context=other, question=short, label=AB), ["question", "context"]),
        (table(text=sentence, bio=other, label=AB), ["text"]),
    ],
)
def test_pairs_are_texts_of_a_length_or_named_so(found: Survey, texts: list[str]) -> None:
    assert find_roles(found).texts == texts


def test_a_number_beside_a_pair_is_its_label() -> None:
    found = bare(AB, lambda i: i / 7, sentence, other)
    assert roles(find_roles(found)) == (["3", "4"], ["2"], None)


def test_what_is_given_is_taken() -> None:
    found = table(n=str, text=sentence, body=other, label=AB, kind=AB)
    assert roles(find_roles(found, labels=["kind"])) == (["text", "body"], ["kind"], "n")
    assert roles(find_roles(found, text="body")) == (["body"], ["label"], "n")
    assert roles(find_roles(found, text_pair="body")) == (["text", "body"], ["label"], "n")
    assert roles(find_roles(found, text="n", text_pair="kind")) == (["n", "kind"], ["label"], None)
    assert find_roles(found, is_labelled=False).labels == []
    assert find_roles(found, labels=["kind"]).why["label"] == ["As asked for."]


def test_reasons_are_said() -> None:
    said = find_roles(table(n=str, text=sentence, title=short, label=AB, kind=AB)).why
    assert said["text"][0].startswith("'text' has 40 different values of ")
    assert said["text"][0].endswith("words on average: its name says that it is text.")
    assert said["text"][1] == "Text too: 'title'; text_pair reads one of them with it."
    assert said["label"] == [
        "'label' has 2 different values: its name says that it is the label.",
        "Labels might stand in 'kind' too; --label takes another one.",
    ]
    assert said["id"] == [
        "'n' has 40 different values, numbers from 0 to 39: another one on each row."
    ]
    pair = find_roles(bare(AB, sentence, other)).why
    assert pair["text_pair"][0].endswith(": a text of about the length of the other.")
    assert pair["text_pair"][1] == "Without text_pair the text is read alone."


@pytest.mark.parametrize(
    ("column", "is_id"),
    [
        (lambda i: f"x{i}", True),
        (lambda i: i, True),
        (lambda i: f"x{i // 2}", False),
        (lambda i: f"x{i}" if i else "", False),
        (lambda i: f"x {i}", False),
        (lambda i: i + 0.5, False),
        (lambda i: f"{i}" + "x" * 70, False),
        (lambda i: [i], False),
    ],
)
def test_ids_are_short_and_another_one_on_each_row(column: Any, is_id: bool) -> None:
    assert (find_roles(table(text=sentence, x=column, label=AB)).id == "x") == is_id


def test_of_few_rows_an_id_has_to_be_called_one() -> None:
    assert find_roles(table(10, text=sentence, x=str, label=AB)).id is None
    assert find_roles(table(10, text=sentence, row_id=str, label=AB)).id == "row_id"
    found = table(text=sentence, x=str, uuid=lambda i: f"u{i}", label=AB)
    assert find_roles(found).id == "uuid"


def test_groups_come_again_and_are_called_so_or_nothing_is() -> None:
    users = [f"u{n}" for n in range(12)]
    assert find_roles(table(text=sentence, label=AB, user_id=users)).group == "user_id"
    assert find_roles(table(text=sentence, label=AB, place=users)).group is None
    assert find_roles(bare(sentence, AB, users)).group == "3"
    assert find_roles(bare(sentence, AB, users[:10])).group is None
    assert find_roles(bare(sentence, AB, list(range(12)))).group is None
    assert find_roles(table(text=sentence, label=AB, author=["x"])).group is None
    assert (
        find_roles(table(text=sentence, label=AB, author=lambda i: f"a{i - (i > 38)}")).group
        is None
    )


def test_columns_are_described() -> None:
    found = table(text=sentence, n=range(3), x=AB, y=[["a", "b"], ["a"]], one=["z"])
    assert [described(column, found) for column in found.columns.values()][1:] == [
        "'n' has 3 different values, numbers from 0 to 2",
        "'x' has 2 different values",
        "'y' has lists of 2 different values",
        "'one' has 1 different value",
    ]
