"""Header defaults: what the two profiles say, and what a user sets by hand."""

import pytest

from fastgen.bank.defaults import PROFILES, merge_defaults, parse_defaults, with_profile
from fastgen.errors import FastgenError
from fastgen.records import Header

HEADER = Header(
    name="x",
    classes=("pug",),
    defaults={
        "policy": "uniform",
        "steps": 9,
        "ags": {"low_if": "lt"},
        "ref_fit": "center_crop",
        "seed_mode": "stream",
    },
)


def test_a_profile_decides_what_the_paper_and_its_code_differ_in_and_nothing_else():
    assert with_profile(HEADER, None) is HEADER
    assert with_profile(HEADER, "dalda-paper").defaults == {"policy": "uniform", "steps": 9}
    official = with_profile(HEADER, "dalda-official").defaults
    ags = {"sampler": "clipnorm", "high_max": "grow_sqrt_n", "score_round": 5}
    assert official == {"policy": "uniform", "steps": 9, "ags": ags}
    assert HEADER.defaults["ags"] == {"low_if": "lt"} and list(PROFILES) == ["dalda-paper", "dalda-official"]
    with pytest.raises(FastgenError, match="profile: got 'dalda'; allowed: dalda-paper, dalda-official"):
        with_profile(HEADER, "dalda")


def test_what_a_user_sets_comes_first_and_objects_are_merged():
    own = {"policy": "ags", "ags": {"sampler": "clipnorm", "score_round": 5}, "steps": 30}
    assert merge_defaults(own, None) == own
    assert merge_defaults(own, {"ags": {"score_round": 3}, "steps": 4}) == {
        "policy": "ags",
        "ags": {"sampler": "clipnorm", "score_round": 3},
        "steps": 4,
    }
    assert "policy" not in merge_defaults(own, {"lambda": 0.5}), "they say the same thing"


def test_defaults_as_users_type_them():
    texts = ["steps=25", "prefix=", "negative_prompt=a = b, c", "policy=0.5"]
    assert parse_defaults([*texts, "ags.sampler=clipnorm", "ags.score_round=5"]) == {
        "steps": 25,
        "prefix": "",
        "negative_prompt": "a = b, c",
        "policy": 0.5,
        "ags": {"sampler": "clipnorm", "score_round": 5},
    }
    assert parse_defaults(['lambda={"policy": "uniform"}']) == {"lambda": {"policy": "uniform"}}
    for texts, message in [
        (["steps"], "default 'steps': write NAME=VALUE"),
        (["=3"], "write NAME=VALUE"),
        (["ags.=3"], "write NAME=VALUE"),
        (["steps=1", "steps=2"], "default steps: got it twice"),
        (["ags=1", "ags.sampler=x"], "default ags.sampler: got it twice"),
    ]:
        with pytest.raises(FastgenError, match=message):
            parse_defaults(texts)
