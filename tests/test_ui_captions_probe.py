"""Probing words from the page: on the toy checkpoint, with its pictures, verdicts and mistakes."""

import re
from urllib.parse import unquote

import pytest

pytest.importorskip("gradio")
pytest.importorskip("diffusers")  # of which the standalone host makes its networks
pytest.importorskip("onnxruntime")

from captions_page import Step
from lib_lora_trainer.demo.run import CHECKPOINT, TAGGER
from lib_lora_trainer.hosts.standalone import StandaloneHost
from tool_cases import picture, settings


@pytest.fixture
def step(tmp_path, quick):
    picture(tmp_path / "pictures" / "one.png")
    host = StandaloneHost(CHECKPOINT, tmp_path / "adapters", device="cpu")
    return Step(tmp_path, settings(tmp_path / "pictures", bucket_minimum=64), host=host)


SHORT = {"pictures": 4, "random-words": 1, "steps": 4, "guidance": 5.0, "side": 128}


def probe(step, words, **changes):
    given = {f"set_captions_probe_{name}": value for name, value in {**SHORT, **changes}.items()}
    step.do("probe_begin", captions_taggers=[], captions_own=str(TAGGER), probe_words=words, **given)


def test_a_word_is_drawn_and_judged_next_to_nothing_and_a_meaningless_word(step):
    probe(step, "hat")
    html = step.shown("captions_shown")
    assert step.text("captions_said") == "" and re.search(r'data-verdict="(free|contaminated)"', html)
    addresses = [unquote(each) for each in re.findall(r'src="([^"]+)"', html)]
    assert len(addresses) == 3 * 4 and all("cache/thumbnails" in each for each in addresses)
    drawn = step.place.projects / "mikori" / "cache" / "probe"
    assert len(list(drawn.glob("*.png"))) == 12
    assert step.refreshed == 0, "no caption was touched"


def test_mistakes_are_told_and_nothing_is_drawn(step):
    probe(step, "")
    assert "there is none" in step.text("captions_said")
    probe(step, "hat", pictures=1)
    assert "#lora_trainer_set_captions_probe_pictures{" in step.shown("captions_beside")
    step.values[step.component("probe_sampler")._id] = "Nonsense"
    probe(step, "hat")
    assert "the host has no 'Nonsense'" in step.text("captions_said")
    assert not (step.place.projects / "mikori" / "cache" / "probe").exists()
