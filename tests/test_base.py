"""Values, files and addresses: codec, settings, seeds, events, atomic files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.base import codec, events, files
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config import run
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig


def test_a_configuration_survives_its_file() -> None:
    config = RunConfig(
        name="ほのか “x”",
        triggers=("a", "b"),
        data=DataConfig(sources=(SourceConfig("/d/写真", 3), SourceConfig("C:\\x\\y"))),
        training=TrainingConfig(seed=2**32 - 1),
    )
    assert codec.from_toml(RunConfig, codec.to_toml(config), "x") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nmae = "x"', "nmae: is not a setting. Did you mean name?"),
        ("[training]\nepochs = 0.5", "training.epochs: 0.5 is not a whole number"),
        ("[training]\nepochs = true", "training.epochs: True is not a whole number"),
        ("[training]\nepochs = 0", "training.epochs: 0 is too small. Use 1 or more."),
        ("[optimizer]\nschedule = 'cosin'", "Choose one of: constant, linear, cosine"),
        ("[optimizer]\nunet_learning_rate = nan", "optimizer.unet_learning_rate: is not a number"),
        ("data = 3", "data: 3 is not a table"),
        ("[data]\nsources = 'x'", "data.sources: 'x' is not a list"),
        ("[[data.sources]]\npath = 1", "data.sources[0].path: 1 is not text in quotes"),
    ],
)
def test_mistakes_in_a_file_are_named(text: str, message: str) -> None:
    with pytest.raises(ProblemsFound) as caught:
        codec.from_toml(RunConfig, text, "f.toml")
    assert message in str(caught.value) and "f.toml" in str(caught.value)


def test_all_mistakes_are_reported_together_and_broken_files_named() -> None:
    with pytest.raises(ProblemsFound) as caught:
        codec.from_toml(RunConfig, "a = 1\nb = 2\n[training]\nepochs = 'x'", "f.toml")
    assert len(caught.value.problems) == 3
    for text in ("name = ", "version = 99"):
        with pytest.raises(ConfigError, match="f.toml"):
            codec.from_toml(RunConfig, text, "f.toml")


def test_old_versions_are_migrated() -> None:
    def rename(document: dict) -> dict:
        return {("name" if key == "title" else key): value for key, value in document.items()}

    assert codec.from_toml(RunConfig, "version = 1\ntitle = 'x'", "f", (rename,)).name == "x"


def test_relative_sources_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[[data.sources]]\npath = 'pics'", encoding="utf-8")
    assert run.read(path).data.sources[0].path == str((tmp_path / "pics").resolve())


def test_seeds_are_addresses() -> None:
    assert derive(1, "noise", 5) == 2805379636822234614
    seen = {derive(*address) for address in [(1, "a", 1), (1, "a", 2), (1, "b", 1), (2, "a", 1), (1, "a", 1, 1), (11, "a")]}
    assert len(seen) == 6 and all(0 <= seed < 2**63 for seed in seen)


@given(st.integers(0, 10**6), st.floats(0, 10), st.text())
def test_events_survive_a_line_of_json(step: int, loss: float, text: str) -> None:
    progress = events.Progress(step, 9, step, 9, 1, 2, loss, loss, {"unet": 1e-4}, 0.1, 2.0)
    planned = events.Planned("r", (text, "b"), 1, 2, 3)
    failed = events.Failed(text, ({"where": text},), "")
    for event in (progress, planned, failed, events.Finished("done", step, (text,), 1.0)):
        line = events.to_json(event)
        assert "\n" not in line and events.from_json(line) == event
    with pytest.raises(ValueError, match="not an event"):
        events.from_json('{"event": "other"}')


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "é.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    files.write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "con", "NUL.x", "x.", " x", "é" * 200, "a\0b"])
def test_names_that_no_file_can_have_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        files.check_name(name, "name")


def test_a_stop_is_final() -> None:
    control = Control()
    control.ask("pause")
    assert control.wish == "pause"
    control.ask("stop")
    control.ask("pause")
    assert control.wish == "stop"


def test_defaults_are_in_their_own_ranges() -> None:
    from lib_lora_trainer.base.setting import range_problems

    assert range_problems(RunConfig()) == []
    assert len(range_problems(replace(RunConfig(), training=TrainingConfig(epochs=0, seed=-1)))) == 2
