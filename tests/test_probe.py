"""The contamination probe: its figures by hand, and on the toy checkpoint free and known words told apart."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from host_contract import hash_tensors
from lib_lora_trainer.app.probe_jobs import Probed, ProbeRequest, probe_words
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.base.events import Finished, Phase, SampleMade
from lib_lora_trainer.demo.run import CHECKPOINT
from lib_lora_trainer.evaluate.probe import Panel, ProbeOptions, consistency, fisher, random_words, read, requests
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.tagging.labels import GENERAL, RATING, Label
from lib_lora_trainer.tagging.models import Found, in_folder

LABELS = (Label("general", RATING), *(Label(f"tag {number}", GENERAL) for number in range(4)))


def panel(word: str, *rows: str) -> Panel:
    """Return a panel: a letter for each tag, x where a picture shows it; the rating always does."""
    scores = [[1.0, *(0.9 if letter == "x" else 0.1 for letter in row)] for row in rows]
    return Panel(word, np.array(scores, np.float32))


NOISE = ("x...", ".x..", "..x.", "...x", "x...", ".x..", "..x.", "...x")
EMPTY = panel("", *NOISE)
RANDOM = (panel("bacadafa", *NOISE[1:], NOISE[0]), panel("gahajaka", *NOISE[2:], *NOISE[:2]))


def test_fisher_by_hand():
    # 3 of 3 against 0 of 3: one of the 20 ways to choose three of six.
    assert fisher((3, 3), (0, 3), more=True) == pytest.approx(1 / 20)
    assert fisher((0, 3), (3, 3), more=False) == pytest.approx(1 / 20)
    # Fisher's tea: 3 of 4 against 1 of 4 is (16 + 1) / 70.
    assert fisher((3, 4), (1, 4), more=True) == pytest.approx(17 / 70)
    assert fisher((0, 8), (0, 24), more=True) == 1.0


def test_consistency_by_hand():
    nothing = np.full((3, 2), 0.5, np.float32)
    same = np.array([[0.9, 0.5]] * 3, np.float32)
    assert consistency(same, nothing) == pytest.approx(1.0)
    assert consistency(nothing, nothing) == 0.0
    # Changes (a, 0), (0, a), (-a, 0): cosines 0, -1, 0.
    turning = np.array([[0.9, 0.5], [0.5, 0.9], [0.1, 0.5]], np.float32)
    assert consistency(turning, nothing) == pytest.approx(-1 / 3, abs=1e-6)


def test_noise_is_free():
    reading = read(panel("mkr", *reversed(NOISE)), EMPTY, RANDOM, LABELS)
    assert (reading.verdict, reading.pushed, reading.suppressed) == ("free", (), ())
    assert "can be a trigger" in reading.text


def test_the_same_thing_every_time_is_contaminated():
    reading = read(panel("taco", *["x..x"] * 8), EMPTY, RANDOM, LABELS)
    assert reading.verdict == "contaminated"
    assert [(each.tag, each.rate, each.usual) for each in reading.pushed] == [("tag 0", 1.0, 0.25), ("tag 3", 1.0, 0.25)]
    # 8 of 8 against 6 of 24, two-sided and over the 4 tags that anybody shows.
    ways = math.comb(24, 6) / math.comb(32, 14)
    assert reading.pushed[0].chance == pytest.approx(ways * 2 * 4)
    assert reading.consistency > reading.usual_consistency
    assert "Rename it, for example to tcx" in reading.text


def test_what_chance_explains_is_free():
    # 3 or 4 of 4 pictures with 4 hits among 16: (4 · 12 + 1) of the 1820 ways to deal them.
    few = panel("word", "x...", "x...", "x...", "....")
    usual = (panel("a", "x...", "....", "....", "...."), panel("b", ".x..", ".x..", "....", "...."))
    assert fisher((3, 4), (1, 12), more=True) == pytest.approx(49 / 1820)
    assert read(few, panel("", *["...."] * 4), usual, LABELS).verdict == "free"


def test_a_small_difference_is_free_however_sure():
    often = panel("word", *["x..."] * 24, *["...."] * 40)
    quiet = panel("", *["...."] * 64)
    usual = panel("a", *["x..."] * 16, *["...."] * 48)  # moves the mean as well, so that 24 are not far
    assert fisher((24, 64), (16, 128), more=True) < 1e-3
    assert read(often, quiet, (usual,), LABELS).verdict == "free"


def test_what_it_shall_stand_for_is_boosting_and_more_than_that_is_not():
    always = panel("word", *["x..x"] * 8)
    assert read(always, EMPTY, RANDOM, LABELS, ("Tag_0", "tag 3")).verdict == "boosting"
    assert read(always, EMPTY, RANDOM, LABELS, ("tag 0",)).verdict == "contaminated"


def test_what_a_word_keeps_away_counts():
    usual = (panel("a", *["x..."] * 8), panel("b", *["x..."] * 8))
    reading = read(panel("word", *["...."] * 8), panel("", *["x..."] * 8), usual, LABELS)
    assert reading.verdict == "contaminated" and [each.tag for each in reading.suppressed] == ["tag 0"]
    assert "keeps tag 0 away" in reading.text


def test_what_no_tag_names_counts_when_it_is_far():
    quiet = panel("", *["...."] * 8)
    near = tuple(Panel(word, quiet.scores + np.float32(0.01)) for word in "ab")
    far = Panel("word", quiet.scores + np.float32(0.2))
    reading = read(far, quiet, near, LABELS)
    assert reading.verdict == "contaminated" and reading.drift == pytest.approx(20, rel=1e-3)
    assert "no word for" in reading.text
    assert read(Panel("word", quiet.scores + np.float32(0.015)), quiet, near, LABELS).verdict == "free"
    still = read(quiet, quiet, (quiet,), LABELS)
    assert (still.verdict, still.drift, still.consistency) == ("free", 0.0, 0.0)


def test_random_words_are_addressed_and_mean_nothing():
    words = random_words(1, 5)
    assert words == random_words(1, 5) != random_words(2, 5)
    assert len(set(words)) == 5 and all(len(word) == 8 and word.isalpha() for word in words)
    assert words[0] not in random_words(1, 5, without=words[:1])


def test_requests_have_the_familys_size_equal_seeds_and_no_emphasis():
    made = requests("kayoko (blue archive)", ProbeOptions(pictures=4, seed=7), "sdxl")
    assert [each.seed for each in made] == [7, 8, 9, 10]
    assert {(each.width, each.height) for each in made} == {(1024, 1024)}
    assert made[0].prompt == r"kayoko \(blue archive\)"
    assert requests("", ProbeOptions(side=128), "sd1")[0].width == 128


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> StandaloneHost:
    pytest.importorskip("diffusers")  # of which the standalone host makes its networks
    return StandaloneHost(CHECKPOINT, tmp_path_factory.mktemp("adapters"), device="cpu")


def tagger() -> Found:
    found = in_folder(CHECKPOINT.parent / "tagger")
    assert found is not None
    return found


SHORT = ProbeOptions(pictures=5, random_words=2, steps=8, guidance=5.0, side=128)


def test_the_toy_checkpoint_knows_its_tags_and_no_other_word(host, tmp_path):
    before, state = hash_tensors(host.load().modules.all()), torch.get_rng_state()
    request = ProbeRequest(("vkturip", "hat", "black hair"), tagger(), tmp_path, SHORT, wanted=("black hair",))
    *events, last = probe_words(host, request, Control())
    assert isinstance(last, Probed)
    verdicts = {reading.word: reading.verdict for reading in last.readings}
    assert verdicts == {"vkturip": "free", "hat": "contaminated", "black hair": "boosting"}
    assert last.readings[1].pushed[0].tag == "hat" and last.readings[1].pushed[0].rate >= 0.9
    assert last.readings[1].drift > last.readings[0].drift
    # The pictures are there: of the empty prompt, two random words and three words.
    assert [pictures.word for pictures in last.pictures][::5] == ["", "black hair"]
    paths = [path for pictures in last.pictures for path in pictures.paths]
    assert len(paths) == len(set(paths)) == 6 * 5 == sum(isinstance(event, SampleMade) for event in events)
    with Image.open(paths[-1]) as picture:
        assert picture.size == (128, 128) and picture.text["parameters"].startswith("black hair")
    phases = [event for event in events if isinstance(event, Phase)]
    assert phases[-1].done == phases[-1].total == 30
    # The host is as it was.
    assert hash_tensors(host.load().modules.all()) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_wish_to_stop_ends_it_and_gives_the_model_back(host, tmp_path):
    control = Control()
    seen = []
    for event in probe_words(host, ProbeRequest(("mkr",), tagger(), tmp_path, SHORT), control):
        seen.append(event)
        if isinstance(event, SampleMade):
            control.ask("stop")
    assert isinstance(seen[-1], Finished) and seen[-1].reason == "stopped"
    assert len(list(Path(tmp_path).glob("*.png"))) == 1
    again = probe_words(host, ProbeRequest(("mkr",), tagger(), tmp_path, SHORT), Control())
    next(again)
    again.close()  # closing it in the middle gives the model back as well
    *_, last = probe_words(host, ProbeRequest(("mkr",), tagger(), tmp_path, ProbeOptions(4, 1, steps=1, side=64)), Control())
    assert isinstance(last, Probed)


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        ((), SHORT, "there is none"),
        (("mkr", "mkr"), SHORT, "twice"),
        (("<lora:other:1>",), SHORT, "has '<'"),
        (("mkr",), ProbeOptions(pictures=2), "too small"),
    ],
)
def test_impossible_requests_are_refused_before_anything_starts(host, tmp_path, words, options, said):
    with pytest.raises(ProblemsFound, match=said):
        next(iter(probe_words(host, ProbeRequest(words, tagger(), tmp_path, options), Control())))


def test_an_unknown_sampler_is_refused(host, tmp_path):
    request = ProbeRequest(("mkr",), tagger(), tmp_path, ProbeOptions(sampler="none"))
    with pytest.raises(ConfigError, match="'none'"):
        next(iter(probe_words(host, request, Control())))
