"""Projects and their runs on disk: names, versions, two editors, histories."""

import json
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from lib_lora_trainer.app import projects, runs
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound, RunConflict
from lib_lora_trainer.base.events import Failed, Finished, Note, Phase, Progress, Saved, to_json
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.paths import flat, put
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.run import RunConfig


def progress(step: int, loss: float = 0.1) -> Progress:
    return Progress(step, 100, step, 100, 1, 10, loss, loss, {"unet": 1e-4}, 0.1, 1.0)


def test_a_new_project_holds_the_defaults_under_its_own_name(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "  ミコリ 1 ")
    snapshot = projects.load(project)
    assert project.name == "ミコリ 1"
    assert snapshot.config == RunConfig(name="ミコリ 1")
    assert projects.names(tmp_path) == ("ミコリ 1",)


@pytest.mark.parametrize("name", ["", " ", "..", "a/b", "..\\x", "con", "a:b", ".hidden", "x" * 200])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        projects.create(tmp_path, name)
    with pytest.raises(ConfigError):
        projects.find(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name_is_refused_also_in_other_case(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "Mikori")
    before = project.file.read_bytes()
    with pytest.raises(ConfigError, match="Mikori"):
        projects.create(tmp_path, "mikori")
    assert project.file.read_bytes() == before


def test_finding_a_project_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    projects.create(tmp_path, "one")
    with pytest.raises(ConfigError, match="one"):
        projects.find(tmp_path, "two")


def test_saved_settings_come_back_and_change_the_version(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "p")
    first = projects.load(project)
    config = put(first.config, "adapter.rank", 32)
    version = projects.save(project, config, first.version)
    assert projects.load(project) == projects.Snapshot(config, version)
    assert version == projects.version(project) != first.version


def test_a_stale_save_writes_nothing(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "p")
    base = projects.load(project)
    projects.save(project, put(base.config, "adapter.rank", 32), base.version)
    before = project.file.read_bytes()
    with pytest.raises(RunConflict):
        projects.save(project, put(base.config, "adapter.rank", 64), base.version)
    assert project.file.read_bytes() == before


def test_saving_what_is_there_already_is_no_conflict(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "p")
    base = projects.load(project)
    config = put(base.config, "adapter.rank", 32)
    version = projects.save(project, config, base.version)
    assert projects.save(project, config, base.version) == version


def test_of_many_simultaneous_saves_from_one_version_exactly_one_wins(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "p")
    base = projects.load(project)
    outcomes: list[str] = []
    together = threading.Barrier(8)

    def save(rank: int) -> None:
        together.wait()
        try:
            projects.save(project, put(base.config, "adapter.rank", rank), base.version)
            outcomes.append(f"saved {rank}")
        except RunConflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=save, args=(rank,)) for rank in range(20, 28)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("conflict") == 7
    assert f"saved {projects.load(project).config.adapter.rank}" in outcomes


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "p")
    project.file.write_text("rank = [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"project\.toml"):
        projects.load(project)
    project.file.write_text("[adapter]\nrankk = 4\n", encoding="utf-8")
    with pytest.raises(ProblemsFound, match=r"adapter\.rank"):
        projects.load(project)
    project.file.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match="UTF-8"):
        projects.load(project)


def test_edits_of_different_settings_are_both_kept() -> None:
    base = RunConfig()
    mine, theirs = put(base, "adapter.rank", 32), put(base, "training.epochs", 3)
    merged = projects.merge(base, mine, theirs)
    assert (merged.config.adapter.rank, merged.config.training.epochs) == (32, 3)
    assert [d.path for d in merged.arrived] == ["training.epochs"]
    assert merged.refused == ()


def test_of_edits_of_one_setting_the_earlier_stays_and_the_later_is_told() -> None:
    base = RunConfig()
    mine, theirs = put(base, "adapter.rank", 32), put(base, "adapter.rank", 64)
    merged = projects.merge(base, mine, theirs)
    assert merged.config.adapter.rank == 64
    assert merged.refused == (projects.Difference("adapter.rank", 32, 64),)


def test_the_same_edit_twice_is_nothing_refused() -> None:
    base = RunConfig()
    edited = put(base, "adapter.rank", 32)
    assert projects.merge(base, edited, edited).refused == ()


def test_differences_name_nested_settings_in_order() -> None:
    changed = put(put(RunConfig(), "training.epochs", 3), "data.caption.keep_tokens", 2)
    assert projects.differences(RunConfig(), changed) == (
        projects.Difference("data.caption.keep_tokens", 1, 2),
        projects.Difference("training.epochs", 10, 3),
    )


def test_putting_reaches_every_setting_and_no_other() -> None:
    for path, value in flat(RunConfig()):
        marked = put(RunConfig(), path, ("marked", value))
        assert [d.path for d in projects.differences(RunConfig(), marked)] == [path]
    with pytest.raises(TypeError):
        put(RunConfig(), "adapter.rankk", 1)


def test_every_recipe_is_valid_and_leaves_what_it_does_not_name() -> None:
    own = replace(RunConfig(), name="mine", triggers=("a",))
    own = put(own, "data.sources", (SourceConfig("/x"),))
    for recipe in RECIPES.values():
        made = apply(recipe, own)
        assert {d.path for d in projects.differences(own, made)} <= set(recipe.settings)
        assert all(dict(flat(made))[path] == value for path, value in recipe.settings.items())
        assert range_problems(made) == []


def test_recipes_have_the_numbers_of_their_guides() -> None:
    held = {name: dict(flat(apply(recipe, RunConfig()))) for name, recipe in RECIPES.items()}
    cake = held["character-g3-adamw"]
    assert (cake["adapter.rank"], cake["adapter.alpha"], cake["optimizer.unet_learning_rate"]) == (32, 16.0, 1e-4)
    assert (cake["optimizer.schedule"], cake["training.max_steps"]) == ("cosine-restarts", 6000)
    locon = held["locon-g2"]
    assert (locon["adapter.method"], locon["adapter.rank"], locon["adapter.conv_rank"]) == ("locon", 16, 8)
    assert (locon["adapter.alpha"], locon["training.batch_size"]) == (1.0, 8)
    assert (locon["optimizer.unet_learning_rate"], locon["optimizer.schedule"]) == (2e-4, "constant")
    assert held["style-unet-only-g4"]["adapter.text_encoder"] is False
    small = held["character-sd1"]
    assert (small["adapter.rank"], small["adapter.alpha"], small["training.clip_skip"]) == (16, 4.0, 2)


def test_runs_are_listed_newest_first_and_never_share_a_folder(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "p")
    config = projects.load(project).config
    early = runs.create(project, config, datetime(2024, 1, 2, 3, 4, 5))
    twin = runs.create(project, config, datetime(2024, 1, 2, 3, 4, 5))
    late = runs.create(project, config, datetime(2024, 1, 3, 3, 4, 5))
    assert runs.identifiers(project)[0] == late
    assert set(runs.identifiers(project)) == {early, twin, late}
    assert runs.configuration(project, early) == config
    with pytest.raises(ConfigError):
        runs.folder_of(project, "../p")


def test_the_history_reads_state_steps_loss_and_files(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "p")
    run = runs.create(project, RunConfig(name="mikori"), datetime(2024, 1, 2, 3, 4, 5))
    journal = project.runs / run / runs.JOURNAL
    known = [Phase("caching latents", 1, 1), *map(progress, range(1, 40)), Saved("/x/a.safetensors", "adapter", 39, 1)]
    journal.write_text("".join(to_json(event) + "\n" for event in known), encoding="utf-8")
    line = runs.summary(project, run)
    assert (line.state, line.step, line.total_steps, line.loss) == ("interrupted", 39, 100, 0.1)
    assert (line.name, line.files) == ("mikori", ("/x/a.safetensors",))
    assert line.started == datetime(2024, 1, 2, 3, 4, 5)
    with journal.open("a", encoding="utf-8") as stream:
        stream.write(to_json(Finished("done", 39, ("/x/a.safetensors", "/x/b.safetensors"), 2.0)) + "\n")
    line = runs.summary(project, run)
    assert (line.state, line.files) == ("done", ("/x/a.safetensors", "/x/b.safetensors"))


def test_a_long_journal_gives_the_same_history_from_its_end(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "p")
    run = runs.create(project, RunConfig(name="long"), datetime(2024, 1, 2, 3, 4, 5))
    journal = project.runs / run / runs.JOURNAL
    known = [*map(progress, range(1, 2000)), Finished("stopped", 1999, ("/x/a.safetensors",), 2.0)]
    journal.write_text("".join(to_json(event) + "\n" for event in known), encoding="utf-8")
    assert journal.stat().st_size > 3 * (1 << 17)
    line = runs.summary(project, run)
    assert (line.state, line.step, line.files) == ("stopped", 1999, ("/x/a.safetensors",))


def test_a_line_cut_off_by_a_crash_becomes_a_note(tmp_path: Path) -> None:
    (tmp_path / runs.JOURNAL).write_text(
        to_json(progress(1)) + "\n" + to_json(progress(2))[:40] + "\n" + json.dumps({"event": "unknown"}) + "\n",
        encoding="utf-8",
    )
    read = runs.read_events(tmp_path)
    assert read[0] == progress(1)
    assert [type(event) for event in read[1:]] == [Note, Note]
    assert "Line 2" in read[1].text  # type: ignore[union-attr]


def test_the_state_is_that_of_the_last_word() -> None:
    assert runs.state_of([]) == "interrupted"
    assert runs.state_of([progress(1), Finished("paused", 1, (), 1.0)]) == "paused"
    assert runs.state_of([Finished("paused", 1, (), 1.0), progress(2)]) == "interrupted"
    assert runs.state_of([progress(1), Failed("x")]) == "failed"
    assert runs.state_of([Finished("done", 1, (), 1.0), Note("note", "cut off")]) == "done"


def test_steps_repeated_after_a_resume_replace_the_earlier_ones() -> None:
    known = [progress(1, 0.5), progress(2, 0.4), progress(3, 0.3), progress(2, 0.25), progress(3, 0.2)]
    assert [(p.step, p.loss) for p in runs.curve(known)] == [(1, 0.5), (2, 0.25), (3, 0.2)]
