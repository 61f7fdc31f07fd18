"""fastgen caption over real HTTP: questions without the class, answers that are usable, nothing asked twice."""

import base64
import io
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fastgen.bank.captions import read_captions
from fastgen.bank.class_names import ClassNames
from fastgen.bank.endpoint import Patience
from fastgen.caption.command import caption
from fastgen.caption.questions import clean, cut, fault_of, question
from fastgen.cli import main
from fastgen.errors import BankError, ChatError
from fastgen.methods.bob import write_bob_bank
from fastgen.petworld.dataset import export
from tests.chat_server import ChatServer, Reply, completion

QUICK = Patience(tries=2, wait=0.01, timeout=5)
COLOURS = {"pug": ["red", "green"], "maine coon": ["blue"]}


@pytest.fixture
def real(tmp_path):
    """One-colour pictures, so that the server can tell which one it was sent."""
    for name, colours in COLOURS.items():
        (tmp_path / "real" / name).mkdir(parents=True)
        for colour in colours:
            Image.new("RGB", (80, 40), colour).save(tmp_path / "real" / name / f"{colour}.png")
    return tmp_path / "real"


def seen(body):
    """Colour, size and question of a request."""
    image, text = body["messages"][-1]["content"]
    header, data = image["image_url"]["url"].split(",")
    assert header == "data:image/jpeg;base64" and (image["type"], text["type"]) == ("image_url", "text")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    pixel = np.asarray(picture)[0, 0].astype(int)
    table = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}
    return min(table, key=lambda name: abs(pixel - table[name]).sum()), picture.size, text["text"]


def answer(body, number):
    colour, _, text = seen(body)
    kind = re.search("describe the (.*?) of", text).group(1)
    return completion(f"A {colour} {kind}.")


def ask(real, server, **options):
    options = {"model": "qwen", "descriptor": "pet", "patience": QUICK, "say": lambda line: None} | options
    return caption(real, base_url=server.url, **options)


def test_the_questions_of_the_card_with_the_right_picture(real, tmp_path):
    with ChatServer(answer) as server:
        out = ask(real, server, side=40)
    assert out == tmp_path / "real.captions.jsonl"
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"file_name": "maine coon/blue.png", "background": "blue", "pose": "blue"},
        {"file_name": "pug/green.png", "background": "green", "pose": "green"},
        {"file_name": "pug/red.png", "background": "red", "pose": "red"},
    ]
    asked = sorted(seen(body) for body in server.bodies)
    for _, size, text in asked:
        assert size == (40, 20)
        assert text in {
            f"describe the {kind} of the pet in as few words as possible. Refer to the pet as simply 'a pet'."
            for kind in ("background", "pose")
        }
    assert len(asked) == 6 and not any(re.search("pug|maine", json.dumps(body["messages"])) for body in server.bodies)
    assert {body["temperature"] for body in server.bodies} == {0.0}
    about = json.loads((tmp_path / "real.captions.jsonl.about.json").read_text())
    assert (about["fastgen_captions"], about["images"], about["answers"], about["model"]) == (1, 3, 6, "qwen")
    assert about["prompt_tokens"] == 600 and about["skipped"] == []


def test_a_rerun_asks_nothing_and_writes_the_same_bytes(real, tmp_path):
    with ChatServer(answer) as server:
        out = ask(real, server)
        before = out.read_bytes(), (tmp_path / "real.captions.jsonl.about.json").read_bytes()
        (real / "pug" / "red.png").rename(real / "pug" / "zed.png")
        ask(real, server)
        assert len(server.bodies) == 6, "a picture is known by its content"
        (real / "pug" / "zed.png").rename(real / "pug" / "red.png")
        ask(real, server, concurrency=1)
        assert (out.read_bytes(), (tmp_path / "real.captions.jsonl.about.json").read_bytes()) == before
        assert len(server.bodies) == 6
        text = "".join(path.read_text() for path in (tmp_path / "real.captions.jsonl.cache").iterdir())
        assert str(tmp_path) not in text and "base64" not in text
        ask(real, server, descriptor="animal")
        assert len(server.bodies) == 12


def test_what_was_answered_before_a_failure_is_not_asked_again(real):
    with ChatServer(lambda body, number: answer(body, number) if number < 4 else Reply(b"", 500)) as server:
        with pytest.raises(ChatError, match="answered 500"):
            ask(real, server, concurrency=1)
        asked = len(server.bodies)
        server.answering = answer
        ask(real, server, concurrency=1)
        assert len(server.bodies) == asked + 2


def test_answers_that_leak_the_class_or_are_empty_or_long_are_asked_again(real):
    """Mistakes 9 and 10."""
    def stubborn(body, number):
        colour, _, text = seen(body)
        if "few words." not in text and colour == "red":
            return completion(" ")
        if "Do not say which kind of pet it is." not in text and colour == "green":
            return completion("a Pug's bed")
        if "at most 20 words" not in text and colour == "blue":
            return completion("very " * 30 + "blue")
        return answer(body, number)

    with ChatServer(stubborn) as server:
        out = ask(real, server)
    assert [one.attributes["pose"] for one in read_captions(out)] == ["blue", "green", "red"]
    assert len(server.bodies) == 12
    again = [body for body in server.bodies if body["temperature"] > 0]
    assert len(again) == 6 and not any("ug" in seen(body)[2].split("pet")[-1] for body in again), "nor named then"


def test_answers_that_stay_bad_are_listed_or_left_out_and_long_ones_cut(real, tmp_path):
    def bad(body, number):
        colour, _, text = seen(body)
        return {"red": completion("two pugs"), "blue": completion("word " * 40)}.get(colour) or answer(body, number)

    with ChatServer(bad) as server:
        with pytest.raises(BankError) as caught:
            ask(real, server)
        assert "1 images have no usable caption" in str(caught.value)
        assert "pug/red.png: background, pose" in str(caught.value)
        assert not (tmp_path / "real.captions.jsonl").exists()
        asked = len(server.bodies)
        out = ask(real, server, skip=True)
        assert len(server.bodies) == asked
    found = {one.file: one.attributes["pose"] for one in read_captions(out)}
    assert found == {"maine coon/blue.png": "word " * 19 + "word", "pug/green.png": "green"}
    about = json.loads((tmp_path / "real.captions.jsonl.about.json").read_text())
    assert about["skipped"] == ["pug/red.png"] and about["shortened"] == 2


def test_any_attribute_can_be_asked_for(real):
    with ChatServer(answer) as server:
        out = ask(real, server, attributes=["lighting"], out=real.parent / "light.jsonl")
    assert json.loads(out.read_text().splitlines()[0]) == {"file_name": "maine coon/blue.png", "lighting": "blue"}


def test_the_key_is_sent_and_written_nowhere(real, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    with ChatServer(answer) as server:
        ask(real, server)
        assert server.headers[0]["Authorization"] == "Bearer sk-very-secret-key"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"sk-very" not in path.read_bytes()


def test_petworlds_ground_truth_is_a_captioner_and_feeds_bob(tmp_path):
    export(tmp_path / "world", classes=["Pug", "Beagle"], per_class=3, test_per_class=1, say=lambda line: None)
    out = caption(tmp_path / "world" / "train", captioner="petworld", descriptor="pet", say=lambda line: None)
    truth = read_captions(tmp_path / "world" / "train" / "metadata.jsonl")
    assert sorted((c.file, c.attributes["pose"]) for c in read_captions(out)) == sorted(
        (c.file, c.attributes["pose"]) for c in truth
    )
    bank = write_bob_bank(out, tmp_path / "bob.jsonl", per_class=2, descriptor="pet", say=lambda line: None)
    assert len(bank.read_text().splitlines()) == 5
    with pytest.raises(BankError, match="holds train and test"):
        caption(tmp_path / "world", captioner="petworld")


def test_a_file_is_taken_over_after_the_same_checks(real, tmp_path):
    lines = [
        {"file_name": f"{name}/{colour}.png", "background": '"A Grassy field."', "pose": "the running pose"}
        for name, colours in COLOURS.items()
        for colour in colours
    ]
    file = tmp_path / "mine.jsonl"

    def write(lines):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    write(lines)
    out = caption(real, captioner=file, say=lambda line: None)
    assert read_captions(out)[0].attributes == {"background": "grassy field", "pose": "running"}
    write([*lines[:2], {**lines[2], "pose": "like a pug"}])
    with pytest.raises(BankError, match="which names pug; write it anew"):
        caption(real, captioner=file)
    write([*lines, {**lines[0], "file_name": "pug/none.png"}])
    with pytest.raises(BankError, match="allowed: an image in"):
        caption(real, captioner=file)
    write(lines[:2])
    with pytest.raises(BankError, match="1 images have no usable caption"):
        caption(real, captioner=file)
    with pytest.raises(BankError, match="is no export of fastgen petworld"):
        caption(real, captioner="petworld")


@pytest.mark.parametrize(
    "text, expected",
    [
        ('"A rocky mountain."', "rocky mountain"),
        ("The background of a pet is a snowy field.", "snowy field"),
        ("Pose: Sitting", "pose: Sitting"),
        ("Snow background", "snow"),
        ("NYC street", "NYC street"),
        ("an indoor\n  room", "indoor room"),
        ("**blurred greenery**", "blurred greenery"),
        ("background", "background"),
        ("...", ""),
    ],
)
def test_answers_fit_the_template(text, expected):
    assert clean(text, "background", "pet") == expected


def test_poses_and_faults():
    assert clean("The pose of the pet is lying in the pose", "pose", "pet") == "lying"
    names = ClassNames(["Pug", "737-800"])
    assert [fault_of(text, names) for text in ("", "?!", "pugs", "a 737 800 tail", "x " * 21, "x " * 20)] == [
        "empty", "empty", "class", "class", "long", None
    ]  # fmt: skip
    assert len(cut("x " * 30).split()) == 20
    assert question("pose", "car", ["class", "long", "class"]).endswith("it is. Use at most 20 words.")


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "model and captioner: got both or neither"),
        ({"model": "m", "captioner": "x"}, "model and captioner: got both or neither"),
        ({"model": "m", "attributes": []}, "attributes: got"),
        ({"model": "m", "attributes": ["a b"]}, "attributes: got"),
        ({"model": "m", "attributes": ["class"]}, "names other than"),
        ({"model": "m", "descriptor": " "}, "descriptor: got nothing"),
        ({"model": "m", "temperature": 3.0}, "temperature: got 3.0"),
        ({"model": "m", "side": 0}, "side: got 0"),
    ],
)
def test_bad_arguments_are_one_clear_error(real, options, message):
    with pytest.raises(BankError) as caught:
        caption(real, **options)
    assert message in str(caught.value)


def test_command(real, tmp_path):
    with ChatServer(answer) as server:
        words = ["caption", real, "--model", "m", "--base-url", server.url, "--descriptor", "pet", "--out"]
        result = CliRunner().invoke(main, [str(w) for w in [*words, tmp_path / "c.jsonl"]], catch_exceptions=False)
    assert result.exit_code == 0 and len(read_captions(tmp_path / "c.jsonl")) == 3
    wrong = CliRunner().invoke(main, ["caption", str(tmp_path), "--model", "m"])
    assert wrong.exit_code == 2 and "no class folder with images" in wrong.output
