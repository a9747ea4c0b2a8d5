"""The demo's figures, report and installation, without the minutes of its training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.demo import measure, report, world
from lib_lora_trainer.demo.install import NAME, PLACEHOLDER, install
from lib_lora_trainer.demo.run import CHECKPOINT, TAGGER, config
from lib_lora_trainer.hosts.api import ImageRequest, MadeImage
from lib_lora_trainer.tagging import wd14


@pytest.fixture(scope="module")
def tagger() -> wd14.Tagger:
    return wd14.load(TAGGER)


def drawn(figure: world.Figure, count: int) -> list[MadeImage]:
    return [MadeImage(world.draw(figure, seed), "", ImageRequest("p", seed=seed)) for seed in range(count)]


def other(**changes: str) -> world.Figure:
    values = {
        "person": "1girl", "hair_color": "brown hair", "hair_style": "long hair", "eyes": "blue eyes", "expression": "smile",
        "outfit": "red dress", "pose": "arms at sides", "accessory": "", "background": "forest",
    }  # fmt: skip
    return world.Figure(**{**values, **changes})


def test_the_figures_are_right_for_pictures_whose_truth_is_known(tagger: wd14.Tagger) -> None:
    recall = measure.recall(8)
    assert measure.judge(recall, drawn(world.CHARACTER, 8), tagger).rate >= 0.95
    assert measure.judge(recall, drawn(other(), 8), tagger).rate <= 0.05
    question = measure.Question("control", ("p",) * 4, (("red dress", "beach"),) * 4)
    assert measure.judge(question, drawn(other(), 4), tagger).rate == pytest.approx(0.5, abs=0.15)


def test_questions_are_fixed_and_ask_what_they_say() -> None:
    assert measure.control() == measure.control() and measure.bleed() == measure.bleed()
    assert set(measure.recall().prompts) == {world.TRIGGER}
    for prompt, tags in zip(measure.control().prompts, measure.control().tags, strict=True):
        assert prompt.startswith(f"{world.TRIGGER}, ") and all(tag in prompt for tag in tags)
    assert not any(world.TRIGGER in prompt for prompt in measure.bleed().prompts)
    assert not any(trait in prompt for prompt in measure.bleed().prompts for trait in world.CHARACTER_TRAITS)


def test_the_report_holds_the_figures_and_escapes_what_it_shows(tmp_path: Path, tagger: wd14.Tagger) -> None:
    character, stranger = drawn(world.CHARACTER, 3), drawn(other(), 3)
    three = measure.recall(3)
    answers = {
        "before.trait_recall": measure.judge(three, stranger, tagger),
        "after.trait_recall": measure.judge(three, character, tagger),
        "after.control": measure.judge(measure.control(3), character, tagger),
        "after.bleed": measure.judge(measure.bleed(3), stranger, tagger),
    }
    result = report.Result(answers, (1.0, 0.5, 0.25), ("<script>",), ("a/mikori.safetensors",), 12.3)
    assert [path.name for path in report.write(result, tmp_path)] == ["grid.png", "report.html", "report.json"]
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["before"]["trait_recall"] <= 0.1 and content["after"]["trait_recall"] >= 0.9
    assert set(content["after"]) == {"trait_recall", "control", "bleed"} and content["files"] == ["mikori.safetensors"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page and "<script>" not in page and "data:image/png;base64," in page
    assert Image.open(tmp_path / "grid.png").width > 4 * world.SIDE


def test_the_demos_settings_are_in_range() -> None:
    assert range_problems(config(Path("x"))) == []


def test_installation_puts_everything_into_a_webui(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="models/Stable-diffusion"):
        list(install(tmp_path))
    (tmp_path / "models" / "Stable-diffusion").mkdir(parents=True)
    written = list(install(tmp_path)) and list(install(tmp_path))  # a second time changes nothing
    assert all(path.exists() for path in written)
    checkpoint = tmp_path / "models" / "Stable-diffusion" / f"{NAME}.safetensors"
    assert checkpoint.read_bytes() == CHECKPOINT.read_bytes()
    yaml = checkpoint.with_suffix(".yaml").read_text(encoding="utf-8")
    assert PLACEHOLDER not in yaml and str(tmp_path / "models" / NAME) in yaml
    assert {"config.json", "vocab.json", "merges.txt"} <= {path.name for path in (tmp_path / "models" / NAME).iterdir()}
    assert list((tmp_path / "models" / NAME / "character").rglob("*.txt"))
