"""Halves, few shots, validation and long tails, against what DALDA's and Diff-Mix's code would do."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fastgen.datasets.dataset import READERS
from fastgen.datasets.source import Files, Source
from fastgen.datasets.split import make_split
from fastgen.errors import FastgenError
from tests.datasets import miniature
from tests.datasets.test_layouts import any_mat


def source_of(tmp_path: Path, train: dict[str, int], test: dict[str, int] | None = None, **more) -> Source:
    """Pictures called `<class>-<part>-<number>`, each another text; splits never open one."""

    def files(part: str, counts: dict[str, int]) -> Files:
        (tmp_path / part).mkdir()
        found = {name: [tmp_path / part / f"{name}-{part}-{i:02d}" for i in range(n)] for name, n in counts.items()}
        for path in (path for paths in found.values() for path in paths):
            path.write_text(path.name)
        return found

    parts = {"train": files("train", train), "test": files("test", test) if test else None}
    return Source(folder=tmp_path, classes=tuple(train), **parts, **more)


def halves_of_dalda(sizes: list[int], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two halves of every class as numbers of its files: one generator, class by class."""
    rng = np.random.default_rng(seed)
    return [tuple(np.array_split(rng.permutation(size), 2)) for size in sizes]


@pytest.mark.parametrize("seed", [0, 2])
def test_pooled_halves_are_those_of_daldas_code(tmp_path: Path, seed: int) -> None:
    sizes = {"b": 7, "a": 6, "c": 1}
    source = source_of(tmp_path, sizes, pooled=True, draw_order=("a", "b", "c"))
    found = make_split(source, "halves", seed=seed, shots=2)
    for name, (first, second) in zip("abc", halves_of_dalda([6, 7, 1], seed), strict=True):
        assert found.train[name] == [source.train[name][i] for i in first[:2]]
        assert found.test[name] == [source.train[name][i] for i in second]
    assert list(found.train) == ["b", "a", "c"] and found.val == {"b": [], "a": [], "c": []}
    assert len(found.train["c"]) == 1 and found.test["c"] == []


def test_pets_have_a_half_of_trainval_and_a_half_of_test_with_a_generator_each(tmp_path: Path) -> None:
    classes = ["Abyssinian", "American Bulldog", "Pug"]
    miniature.pets(tmp_path, classes, train=7, test=5)
    source = READERS["pets"](tmp_path)
    assert source.test is not None
    found = make_split(source, "halves", seed=1)
    for name, (first, _), (_, second) in zip(
        classes, halves_of_dalda([7] * 3, 1), halves_of_dalda([5] * 3, 1), strict=True
    ):
        assert found.train[name] == [source.train[name][i] for i in first]
        assert found.test[name] == [source.test[name][i] for i in second]


def test_flowers_are_halved_as_one_pool_in_the_order_of_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_mat(monkeypatch)
    miniature.flowers102(tmp_path, train=1, val=1, test=2)
    source = READERS["flowers102"](tmp_path)
    pool: Files = {name: [] for name in source.classes}
    for path in sorted((tmp_path / "flowers-102" / "jpg").iterdir()):
        pool[source.classes[miniature.label_of(path)]].append(path)
    found = make_split(source, "halves", seed=0, shots=1)
    for name, (first, second) in zip(source.classes, halves_of_dalda([4] * 102, 0), strict=True):
        assert found.train[name] == [pool[name][first[0]]]
        assert found.test[name] == [pool[name][i] for i in second]


def test_another_seed_is_another_split_and_fewer_shots_are_the_first_ones(tmp_path: Path) -> None:
    source = source_of(tmp_path, {"a": 40, "b": 40}, pooled=True)
    splits = [make_split(source, "halves", seed=seed, shots=shots) for seed, shots in ((0, 4), (0, 8), (1, 4))]
    assert splits[0].train["b"] == splits[1].train["b"][:4]
    assert splits[0].train != splits[2].train and splits[0].test != splits[2].test


def test_official_split_is_kept_and_validation_comes_from_what_is_not_trained_on(tmp_path: Path) -> None:
    source = source_of(tmp_path, {"a": 10, "b": 8}, {"a": 3, "b": 4})
    for shots in (None, 2):
        found = make_split(source, "official", shots=shots, val_per_class=3)
        assert source.test is not None
        assert {name: sorted(files) for name, files in found.test.items()} == source.test
        assert [len(found.val[name]) for name in "ab"] == [3, 3]
        assert [len(found.train[name]) for name in "ab"] == ([7, 5] if shots is None else [2, 2])
        assert not {p for files in found.train.values() for p in files} & {p for f in found.val.values() for p in f}
    assert found.val == make_split(source, "official", shots=5, val_per_class=3).val
    with pytest.raises(FastgenError, match="val_per_class is 8, but of training images 'b' has 8; give a smaller"):
        make_split(source, "official", val_per_class=8)
    assert len(make_split(source, "official", shots=16).train["b"]) == 8


def test_official_validation_images_are_used_where_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_mat(monkeypatch)
    miniature.flowers102(tmp_path, train=2, val=3, test=1)
    source = READERS["flowers102"](tmp_path)
    found = make_split(source, "official", val_per_class=2)
    assert source.val is not None
    assert all(len(found.train[name]) == 2 and set(found.val[name]) < set(source.val[name]) for name in source.classes)
    assert make_split(source, "official").val == {name: [] for name in source.classes}


def test_long_tail_has_diff_mix_counts_and_validates_on_test_images(tmp_path: Path) -> None:
    sizes = {name: 30 for name in "abcdefgh"} | {"g": 20, "h": 40}
    source = source_of(tmp_path, sizes, dict.fromkeys(sizes, 6))
    found = make_split(source, "official", imbalance=10, val_per_class=2)
    order = sorted(sizes, key=lambda name: -sizes[name])  # h, then a to f in label order, then g
    expected = {name: max(1, int(30 * 0.1 ** (rank / 6))) for rank, name in enumerate(order)}
    assert {name: len(files) for name, files in found.train.items()} == expected
    assert all(len(found.val[name]) == 2 and len(found.test[name]) == 4 for name in sizes)
    assert all(not set(found.val[name]) & set(found.test[name]) for name in sizes)
    assert all("-test-" in path.name for files in found.val.values() for path in files)


def test_no_official_split_of_a_plain_folder(tmp_path: Path) -> None:
    source = source_of(tmp_path, {"a": 4}, pooled=True)
    with pytest.raises(FastgenError, match="has no official split, .*give --split halves"):
        make_split(source, "official")


def test_the_same_bytes_are_never_trained_and_tested_on(tmp_path: Path) -> None:
    source = source_of(tmp_path, {"a": 4, "b": 4}, {"a": 3, "b": 3})
    assert source.test is not None
    shutil.copy(source.train["a"][1], source.test["a"][2])
    shutil.copy(source.train["b"][0], source.train["b"][3])  # twins in one part stay
    found = make_split(source, "official")
    assert found.twins == (source.test["a"][2],)
    assert set(found.test["a"]) == set(source.test["a"][:2])
    assert len(found.train["b"]) == 4
