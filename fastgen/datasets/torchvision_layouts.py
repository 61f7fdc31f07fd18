"""Oxford Pets, Flowers102, FGVC-Aircraft and Stanford Cars, read by torchvision from where it would have put them."""

from pathlib import Path

from torchvision.datasets import FGVCAircraft, Flowers102, OxfordIIITPet, StanfordCars

from fastgen.datasets.source import Source, by_class, folder_names, readable, require


def pets(root: Path) -> Source:
    """Oxford-IIIT Pet: 37 breeds, official training (trainval) and test images."""
    what, folder = "Oxford-IIIT Pet", root / "oxford-iiit-pet"
    require(folder, ["images/", "annotations/trainval.txt", "annotations/test.txt"], what=what)
    with readable(folder, what=what):
        parts = [OxfordIIITPet(root, split=split) for split in ("trainval", "test")]
    classes = tuple(parts[0].classes)
    train, test = (by_class(classes, part._labels, part._images) for part in parts)
    return Source(folder=folder, classes=classes, train=train, test=test)


def flowers102(root: Path) -> Source:
    """Oxford Flowers 102: official training, validation and test images; halves are halves of all, as in DALDA."""
    what, folder = "Flowers102", root / "flowers-102"
    require(folder, ["jpg/", "imagelabels.mat", "setid.mat"], what=what)
    with readable(folder, what=what):  # torchvision compares both .mat files with the hashes of the published ones
        parts = [Flowers102(root, split=split) for split in ("train", "val", "test")]
    # torchvision keeps the question mark of the data set's own list: "pink-yellow dahlia?"
    classes = tuple(name.rstrip("?") for name in Flowers102.classes)
    train, val, test = (by_class(classes, part._labels, part._image_files) for part in parts)
    return Source(folder=folder, classes=classes, train=train, val=val, test=test, pooled=True)


def aircraft(root: Path) -> Source:
    """FGVC-Aircraft: 100 variants, official training (trainval) and test images."""
    what, folder = "FGVC-Aircraft", root / "fgvc-aircraft-2013b"
    lists = ["variants.txt", "images_variant_trainval.txt", "images_variant_test.txt"]
    require(folder, ["data/images/", *(f"data/{name}" for name in lists)], what=what)
    with readable(folder, what=what):
        parts = [FGVCAircraft(root, split=split) for split in ("trainval", "test")]
    classes, renamed = folder_names(parts[0].classes)
    train, test = (by_class(classes, part._labels, part._image_files) for part in parts)
    return Source(folder=folder, classes=classes, train=train, test=test, renamed=renamed)


def cars(root: Path) -> Source:
    """Stanford Cars: 196 models, official training and test images."""
    what, folder = "Stanford Cars", root / "stanford_cars"
    lists = ["devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"]
    require(folder, ["cars_train/", "cars_test/", *lists], what=what)
    with readable(folder, what=what):
        parts = [StanfordCars(root, split=split) for split in ("train", "test")]
    classes, renamed = folder_names(parts[0].classes)
    train, test = (by_class(classes, [y for _, y in part._samples], [x for x, _ in part._samples]) for part in parts)
    return Source(folder=folder, classes=classes, train=train, test=test, renamed=renamed)
