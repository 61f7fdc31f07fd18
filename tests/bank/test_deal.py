"""Dealing sentences out to references: how many images each one gets, and whose sentences they are."""

from collections import Counter

import pytest

from fastgen.bank.deal import deal_bank
from fastgen.bank.read import check_bank, open_bank
from fastgen.bank.template import write_template_bank
from fastgen.errors import BankError, FastgenError
from fastgen.plan.references import find_references
from fastgen.plan.resolve import count_rows, plan_rows

CLASSES = ["Pug", "Beagle"]


@pytest.fixture
def bank(tmp_path):
    """Four sentences for each of two classes."""
    templates = [f"{{class}} number {i}" for i in range(4)]
    return write_template_bank(CLASSES, tmp_path / "bank.jsonl", template=templates, defaults={"policy": "uniform"})


def prompts_of(path, shots):
    """Prompts by reference, as the plan pairs them."""
    dealt = check_bank(path)
    references = find_references("petworld", dealt.header, bank_dir=path.parent, shots=shots)
    rows = list(plan_rows(dealt, references))
    assert len(rows) == len({row.id for row in rows}) == count_rows(dealt, references)
    found = {}
    for row in rows:
        assert row.shot is None and row.is_image_row and row.class_ in row.prompt and row.class_ in row.ref.id
        found.setdefault(row.ref.id, []).append(row.prompt)
    return found


def test_every_reference_meets_every_sentence_in_an_order_of_its_own(bank, tmp_path):
    found = prompts_of(deal_bank(bank, tmp_path / "d.jsonl", shots=3), 3)
    assert len(found) == 6
    assert {len(set(own)) for own in found.values()} == {4} and {len(own) for own in found.values()} == {4}
    assert len({tuple(text[-1] for text in own) for own in found.values()}) > 1


def test_one_image_per_reference(bank, tmp_path):
    """What the official LLM+AGS config says: a sentence drawn for each reference."""
    found = prompts_of(deal_bank(bank, tmp_path / "d.jsonl", shots=8, images_per_ref=1), 8)
    assert {len(own) for own in found.values()} == {1}
    assert len({own[0] for name, own in found.items() if "Pug" in name}) > 1
    other = prompts_of(deal_bank(bank, tmp_path / "e.jsonl", shots=8, images_per_ref=1, seed=1), 8)
    assert other != found
    fewer = prompts_of(deal_bank(bank, tmp_path / "f.jsonl", shots=2, images_per_ref=1), 2)
    assert fewer == {name: own for name, own in found.items() if name in fewer}, "each has a stream of its own"


def test_more_images_than_sentences_go_round_again(bank, tmp_path):
    found = prompts_of(deal_bank(bank, tmp_path / "d.jsonl", shots=1, images_per_ref=10), 1)
    for own in found.values():
        assert sorted(Counter(own).values()) == [2, 2, 3, 3]
        assert len(set(own[:4])) == len(set(own[4:8])) == 4, "all once before any twice"


def test_sentences_of_ones_own(bank, tmp_path):
    path = deal_bank(bank, tmp_path / "d.jsonl", shots=2, prompts_per="reference")
    pugs = [own for name, own in prompts_of(path, 2).items() if "Pug" in name]
    assert [len(own) for own in pugs] == [2, 2] and not set(pugs[0]) & set(pugs[1])
    header = open_bank(path).header
    assert header.defaults == {"policy": "uniform", "shots": 2}
    assert header.provenance["prompts_per"] == "reference" and header.provenance["source"]["kind"] == "template"


def test_a_run_may_have_fewer_or_more_references_than_were_dealt_to(bank, tmp_path):
    path = deal_bank(bank, tmp_path / "d.jsonl", shots=2, prompts_per="reference")
    two = prompts_of(path, 2)
    assert prompts_of(path, 1) == {name: own for name, own in two.items() if name.endswith("0-0")}
    five = prompts_of(path, 5)
    assert [five[f"petworld/Pug/0-{i}"] for i in range(5)] == [two[f"petworld/Pug/0-{i % 2}"] for i in range(5)]


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({"shots": 0}, FastgenError, "shots: got 0; allowed: 1 or more"),
        ({"images_per_ref": 0}, FastgenError, "images_per_ref: got 0"),
        ({"prompts_per": "image"}, FastgenError, "prompts_per: got 'image'; allowed: class, reference"),
        ({"shots": 5, "prompts_per": "reference"}, BankError, "class 'Pug': got 4 prompts, allowed: at least 5"),
    ],
)
def test_bad_arguments_write_nothing(bank, tmp_path, options, kind, message):
    with pytest.raises(kind) as error:
        deal_bank(bank, tmp_path / "d.jsonl", **options)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == [bank]


def test_a_dealt_bank_is_not_dealt_again(bank, tmp_path):
    first = deal_bank(bank, tmp_path / "d.jsonl")
    with pytest.raises(BankError, match="d.jsonl:2: got a row for one reference or seed"):
        deal_bank(first, tmp_path / "e.jsonl")
