"""The tab: settings files of our own and of other trainers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

gr = pytest.importorskip("gradio")

from lib_lora_trainer.app import projects  # noqa: E402
from lib_lora_trainer.base import codec  # noqa: E402
from lib_lora_trainer.base.errors import ConfigError, UserError  # noqa: E402
from lib_lora_trainer.config.data import SourceConfig  # noqa: E402
from lib_lora_trainer.config.paths import flat, put  # noqa: E402
from lib_lora_trainer.config.run import RunConfig  # noqa: E402
from lib_lora_trainer.ui import importing  # noqa: E402
from ui_page import Tab, opened_page, page, pictures_folder  # noqa: E402, F401

SD_SCRIPTS = """
network_module = "networks.lora"
network_dim = 24
network_alpha = 12
unet_lr = 3e-4
text_encoder_lr = 1e-4
min_snr_gamma = 5.0
max_train_epochs = 7
xformers = true
made_up = "<b>7</b>"
"""
KOHYA = {
    "LoRA_type": "LyCORIS/LoKr", "network_dim": 24, "network_alpha": 12, "unet_lr": 3e-4, "epoch": 7, "factor": 8,
    "output_name": "tower", "max_resolution": "768,768", "train_data_dir": "", "pretrained_model_name_or_path": "x",
}  # fmt: skip


def saved(page: Tab) -> RunConfig:
    return projects.load(projects.find(page.root, "mikori")).config


def test_another_trainers_file_is_taken_over_and_what_is_not_stands_first(page: Tab) -> None:
    before = saved(page)
    page.do("import", toml=SD_SCRIPTS)
    config = saved(page)
    assert (config.adapter.rank, config.adapter.alpha, config.training.epochs) == (24, 12.0, 7)
    assert (config.optimizer.unet_learning_rate, config.loss.min_snr_gamma) == (3e-4, 5.0)
    assert (config.name, config.triggers, config.data.sources) == (before.name, before.triggers, before.data.sources)
    assert config.samples.prompts == before.samples.prompts
    shown = page.shown("imported")
    assert shown.index("not taken over") < shown.index(" taken over</summary>")
    assert "made_up" in shown
    assert "&lt;b&gt;7" in shown
    assert "<b>7" not in shown
    assert "<th>network_dim</th><td>Rank (dim)</td><td>24</td>" in shown
    assert page.shown("set_adapter_rank") == 24
    page.do("undo")
    assert saved(page) == before


def test_a_file_of_the_kohya_window_is_known_by_its_content(page: Tab) -> None:
    page.do("import", toml=json.dumps(KOHYA), file_name="mine.json")
    config = saved(page)
    assert (config.adapter.method, config.adapter.rank, config.data.resolution) == ("lokr", 24, 768)
    assert config.name == "tower", "what the file says of the project counts"
    assert "kohya_ss" in page.shown("imported")


def test_a_dataset_file_changes_the_dataset_alone(page: Tab) -> None:
    page.do("set_adapter_rank", "blur", set_adapter_rank=48)
    text = (
        '[general]\nshuffle_caption = false\n[[datasets]]\nresolution = 640\n[[datasets.subsets]]\nimage_dir = "new"\n'
    )
    page.do("import", toml=text)
    config = saved(page)
    assert (config.adapter.rank, config.data.resolution, config.data.caption.shuffle) == (48, 640, False)
    folder = page.root / "mikori" / "new"
    assert [source.path for source in config.data.sources] == [str(folder.resolve())], "relative to the project"
    assert config.training.epochs == RunConfig().training.epochs


def test_our_own_file_is_taken_over_whole_and_reports_nothing(page: Tab) -> None:
    config = put(put(RunConfig(name="own"), "adapter.rank", 3), "data.sources", (SourceConfig("pictures"),))
    page.do("import", toml=SD_SCRIPTS)
    page.do("import", toml=codec.to_toml(config))
    expected = replace(config, data=replace(config.data, sources=(SourceConfig(str(page.root / "mikori/pictures")),)))
    assert saved(page) == expected
    assert page.shown("imported") == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("[adapter]\nrankk = 3", "Did you mean adapter.rank"),
        ("network_dim = [", "neither JSON nor valid TOML"),
        ('{"a": ', "not valid JSON"),
        ("colour = 3", "no known trainer"),
    ],
)
def test_a_file_that_cannot_be_read_changes_nothing_and_says_why(page: Tab, text: str, said: str) -> None:
    before = saved(page)
    page.do("import", toml=text, file_name="C:\\secret\\my file.toml")
    assert said in page.shown("notice").replace("&#x27;", "'")
    assert ".import-" not in page.shown("notice")
    assert saved(page) == before
    assert not list((page.root / "mikori").glob(".import-*")), "nothing is left behind"


def test_a_file_that_names_others_is_read_where_it_lies(page: Tab, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    text = '[[datasets]]\nresolution = 832\n[[datasets.subsets]]\nimage_dir = "pictures"\nnum_repeats = 6\n'
    (tmp_path / "there" / "dataset.toml").write_text(text, encoding="utf-8")
    run = tmp_path / "there" / "run.toml"
    run.write_text(f'{SD_SCRIPTS}\ndataset_config = "dataset.toml"\n', encoding="utf-8")
    page.do("import_from_path", import_path=f'"{run}"')
    config = saved(page)
    assert config.data.resolution == 832
    assert [(source.path, source.repeats) for source in config.data.sources] == [
        (str((tmp_path / "there" / "pictures").resolve()), 6)
    ]
    page.do("import_from_path", import_path=" ")
    assert "no path is entered" in page.shown("notice")
    page.do("import_from_path", import_path=str(tmp_path / "none.toml"))
    assert "cannot be read" in page.shown("notice")


def test_no_file_of_this_machine_is_read_on_a_strangers_word(tmp_path: Path, pictures_folder: Path) -> None:
    def closed() -> None:
        raise UserError("not from here")

    page = opened_page(tmp_path, pictures_folder, gate=closed)
    secret = tmp_path / "secret.toml"
    secret.write_text("password = 'x'", encoding="utf-8")
    before = saved(page)
    page.do("import", toml=f"{SD_SCRIPTS}\nsample_prompts = {json.dumps(str(secret))}")
    assert "not from here" in page.shown("notice")
    assert saved(page) == before
    page.do("import", toml=codec.to_toml(put(before, "adapter.rank", 5)))
    assert saved(page).adapter.rank == 5, "our own file names no other, so it may come from anywhere"


def test_every_setting_of_an_import_has_a_name_for_people(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "p")
    examples = Path(__file__).parent / "imported"
    for path in sorted([*examples.glob("*.toml"), *examples.glob("*.json")]):
        read = importing.from_path(str(path))
        assert read.foreign is not None
        shown = importing.html(read)
        assert "<td>data." not in shown
        assert "<td>adapter." not in shown
        merged = importing.onto(projects.load(project).config, read)
        assert dict(flat(merged))["base_model"] == ""
    with pytest.raises(ConfigError):
        importing.from_path(str(examples / "prompts.txt"))
