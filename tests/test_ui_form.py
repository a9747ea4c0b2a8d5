"""The form: every setting has a field, what is entered is what is saved, and what means nothing is out of the way."""

import dataclasses
import html
import json
import re
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from lib_lora_trainer.app import projects  # noqa: E402
from lib_lora_trainer.base.errors import Problem, ProblemsFound  # noqa: E402
from lib_lora_trainer.config.data import SourceConfig  # noqa: E402
from lib_lora_trainer.config.paths import flat, put  # noqa: E402
from lib_lora_trainer.config.run import RunConfig  # noqa: E402
from lib_lora_trainer.ui import bind, entry, fields, findings, relevance, settings_form  # noqa: E402
from lib_lora_trainer.ui.session import described  # noqa: E402
from lib_lora_trainer.ui.source_form import options_of  # noqa: E402
from lib_lora_trainer.ui.synonyms import SYNONYMS  # noqa: E402
from ui_page import SAMPLERS, Tab, entered, page, pictures_folder  # noqa: E402, F401


def other_than(value: Any, field: fields.Field) -> Any:
    """Return a value that a field could have instead of the one it has."""
    if field.about.choices:
        return next(choice for choice in field.about.choices if choice != value)
    samples = {
        "switch": value is not True,
        "whole": int(field.about.minimum or 0) + 3,
        "number": (field.about.minimum or 0.0) + 0.000123456789,
        "text": "a, “b” |||",
        "words": ("x", "y z"),
        "lines": ("betas=0.9,0.99", "b"),
        "wholes": (640, 1024),
    }
    return samples[field.kind]


def test_every_setting_has_exactly_one_place() -> None:
    everything = {path for path, _ in flat(RunConfig())} - set(fields.ELSEWHERE)
    unfolded = [field.path for field in fields.visible_fields()]
    folded = [field.path for field in fields.folded_fields()]
    assert sorted([*unfolded, *folded, *fields.IN_DATASET]) == sorted(everything)
    assert {field.group for field in fields.folded_fields()} <= set(fields.GROUPS)
    assert len(unfolded) <= 15, "the settings that matter fit on one screen"
    of_folders = [field.path.removeprefix(fields.SOURCE) for field in fields.source_fields()]
    assert of_folders == [field.name for field in dataclasses.fields(SourceConfig)]


def test_every_field_says_what_it_is_and_an_empty_one_what_it_stands_for() -> None:
    for field in (*fields.all_fields(), *fields.source_fields()):
        assert field.about.help, field.path
        assert field.optional == bool(field.none_means), field.path
        if field.optional and field.kind != "switch":
            assert f"Empty: {field.none_means}." in field.help
    optional = {f.name for f in dataclasses.fields(SourceConfig) if f.default is None}
    assert set(fields.DATASET_VALUE) == optional
    known = dict(flat(RunConfig()))
    hints = typing.get_type_hints(SourceConfig)
    for name, path in fields.DATASET_VALUE.items():
        assert type(known[path]) in typing.get_args(hints[name]), path


@pytest.mark.parametrize("field", fields.all_fields(), ids=lambda field: field.path)
def test_what_a_field_shows_is_what_it_saves(field: fields.Field) -> None:
    for value in (field.default, other_than(field.default, field)):
        config = put(RunConfig(), field.path, value)
        assert bind.configuration(RunConfig(), bind.values(config), (*SAMPLERS, str(value))) == config
    if field.optional:
        config = put(RunConfig(), field.path, other_than(None, field))
        assert bind.configuration(config, bind.values(RunConfig()), SAMPLERS) == RunConfig()


@pytest.mark.parametrize("field", fields.source_fields(), ids=lambda field: field.path)
def test_what_a_folders_field_shows_is_what_it_saves(field: fields.Field) -> None:
    name = field.path.removeprefix(fields.SOURCE)
    before = put(RunConfig(), "data.sources", (SourceConfig("/a"), SourceConfig("/b", repeats=2)))
    values = [other_than(field.default, field)]
    values += [None, False, True] if field.kind == "switch" and field.optional else []
    values += [""] if field.optional and field.kind == "text" else []
    for value in values:
        config = put(before, "data.sources", (before.data.sources[0], replace(before.data.sources[1], **{name: value})))
        sent = bind.values(config, 1)
        sent[len(fields.all_fields())] = bind.values(before, 1)[len(fields.all_fields())]
        assert bind.configuration(before, sent, SAMPLERS) == config


def test_no_text_and_no_value_are_different_things() -> None:
    prefix = next(field for field in fields.source_fields() if field.path.endswith(".prefix"))
    assert [entry.from_form(prefix, text) for text in ("", '""', "x, ")] == [None, "", "x, "]
    assert [entry.to_form(prefix, value) for value in (None, "", "x")] == ["", '""', "x"]
    beta = next(field for field in fields.all_fields() if field.path == "optimizer.beta2")
    assert entry.from_form(beta, entry.to_form(beta, 0.9999999)) == 0.9999999
    assert entry.from_form(beta, "  ") is None


def test_every_mistake_is_named_with_its_field() -> None:
    values = entered(
        RunConfig(), adapter__rank=0, training__epochs=2.5, training__seed=None, adapter__method="none such",
        optimizer__schedule="'; drop", samples__sampler="unknown", optimizer__unet_learning_rate=float("nan"),
        optimizer__beta1="much", data__more_resolutions="768, small", optimizer__weight_decay="-1",
    )  # fmt: skip
    with pytest.raises(ProblemsFound) as caught:
        bind.configuration(RunConfig(), values, SAMPLERS)
    assert {problem.where for problem in caught.value.problems} == {
        "adapter.rank", "training.epochs", "training.seed", "adapter.method", "optimizer.schedule", "samples.sampler",
        "optimizer.unet_learning_rate", "optimizer.beta1", "data.more_resolutions", "optimizer.weight_decay",
    }  # fmt: skip


def test_a_problem_in_a_list_or_a_folder_finds_its_field() -> None:
    assert bind.selector_of("adapter.rank") == "#lora_trainer_set_adapter_rank"
    assert bind.selector_of("adapter.rules[1]") == "#lora_trainer_set_adapter_rules"
    third = "#lora_trainer_folder:has(#lora_trainer_folder_2)"
    assert bind.selector_of("data.sources[2].keep_tokens") == f"{third} #lora_trainer_source_keep-tokens"
    assert bind.selector_of("data.sources[2].none_such") == f"{third} #lora_trainer_source_path"
    assert bind.selector_of("data.sources") == "#lora_trainer_source_path"
    assert bind.selector_of("/some/picture.png") == ""
    style = findings.beside_fields([Problem("error", "data.sources[2].masks", "is missing.")])
    assert "#lora_trainer_source_chosen label:nth-of-type(3)" in style
    assert 'data-marked="lora_trainer_source_masks"' in style


def test_more_folders_than_anybody_enters_are_kept() -> None:
    sources = tuple(SourceConfig(f"/{number}", flip=True) for number in range(40))
    config = put(RunConfig(), "data.sources", sources)
    assert bind.configuration(config, entered(config, adapter__rank=4), SAMPLERS).data.sources == sources


def place_of(name: str) -> int:
    names = [field.path.removeprefix(fields.SOURCE) for field in fields.source_fields()]
    return len(fields.all_fields()) + 1 + names.index(name)


def test_an_edit_lands_in_the_folder_it_was_made_in_however_late_it_arrives() -> None:
    three = put(RunConfig(), "data.sources", tuple(SourceConfig(path) for path in ("/a", "/b", "/c")))
    sent = bind.values(three, 1)
    sent[place_of("repeats")] = 7
    without_a = put(three, "data.sources", three.data.sources[1:])  # another browser removed a folder meanwhile
    assert bind.configuration(without_a, sent, SAMPLERS).data.sources == (SourceConfig("/b", 7), SourceConfig("/c"))
    without_b = put(three, "data.sources", (three.data.sources[0], three.data.sources[2]))
    with pytest.raises(ProblemsFound, match="/b was removed"):
        bind.configuration(without_b, sent, SAMPLERS)


def test_a_new_folder_stays_one_folder_while_it_is_edited(page: Tab, tmp_path: Path) -> None:
    page.do("add_folder")
    for name in ("one", "one-two"):  # its path is corrected: the same folder, not another one
        page.do("source_path", "blur", source_path=str(tmp_path / name))
    page.do("source_repeats", "blur", source_repeats=4)
    sources = projects.load(projects.find(page.root, "mikori")).config.data.sources
    assert [(Path(source.path).name, source.repeats) for source in sources] == [("pictures", 0), ("one-two", 4)]
    page.do("source_chosen", "input", source_chosen="0")
    assert page.shown("source_path").endswith("pictures")
    assert page.shown("source_repeats") == 0
    page.do("source_flip", "input", source_flip="on")
    sources = projects.load(projects.find(page.root, "mikori")).config.data.sources
    assert [source.flip for source in sources] == [True, None]
    assert page.of("source_chosen", "choices")[0][0].endswith("· mirror")
    page.do("source_path", "blur", source_path="  ")
    assert "#lora_trainer_folder_0" in page.shown("styles"), "an emptied path is a mistake, not a removal"
    page.do("remove_folder")
    sources = projects.load(projects.find(page.root, "mikori")).config.data.sources
    assert [Path(source.path).name for source in sources] == ["one-two"]
    assert page.shown("source_path").endswith("one-two")


def test_two_browsers_with_different_folders_in_sight_do_not_mix_them(page: Tab, tmp_path: Path) -> None:
    page.do("add_folder")
    page.do("source_path", "blur", source_path=str(tmp_path))
    other = Tab(page.root.parent)
    other.do("attach", remembered="mikori")
    other.do("source_repeats", "blur", source_repeats=3)
    page.do("attach")
    assert page.shown("source_path") == str(tmp_path), "the folder in sight stays in sight"
    page.do("source_repeats", "blur", source_repeats=5)
    sources = projects.load(projects.find(page.root, "mikori")).config.data.sources
    assert [source.repeats for source in sources] == [3, 5]


def test_an_empty_field_of_a_folder_says_what_it_stands_for(page: Tab) -> None:
    page.do("source_chosen", "input", source_chosen="0")
    assert page.of("source_resolution", "placeholder") == "as the dataset: 64"
    page.do("set_data_resolution", "blur", set_data_resolution=128)
    assert page.of("source_resolution", "placeholder") == "as the dataset: 128"
    page.do("set_data_flip", "input", set_data_flip=True)
    assert ("as the dataset: on", entry.USUAL) in page.of("source_flip", "choices")


def test_a_change_of_folders_is_told_setting_by_setting() -> None:
    one = put(RunConfig(), "data.sources", (SourceConfig("/a"), SourceConfig("/b")))
    two = put(RunConfig(), "data.sources", (SourceConfig("/a"), SourceConfig("/b", masks="/m", flip=False)))
    told = described(projects.differences(one, two))
    assert told == "Folder 2: Masks empty → /m, Folder 2: Mirror automatic → off"
    assert options_of(two.data.sources[1]) == ("masks /m", "mirror off")


def test_every_rule_of_meaning_names_settings_and_values_that_exist() -> None:
    known, about = dict(flat(RunConfig())), {field.path: field.about for field in fields.all_fields()}
    for rule in relevance.RULES:
        assert set(rule.paths) <= set(known)
        for condition in rule.conditions:
            for path, allowed in condition.items():
                assert path in known
                if not isinstance(allowed, tuple):
                    continue
                for value in allowed:
                    assert type(value) is type(known[path])
                    assert not about[path].choices or value in about[path].choices, value


def test_what_means_nothing_is_greyed_and_keeps_its_value(page: Tab) -> None:
    lokr = "#lora_trainer_set_adapter_lokr-factor"
    assert lokr in page.shown("relevance")
    page.do("set_adapter_method", "input", set_adapter_method="lokr")
    assert lokr not in page.shown("relevance")
    page.do("set_adapter_lokr-factor", "blur", **{"set_adapter_lokr-factor": 8})
    page.do("set_adapter_method", "input", set_adapter_method="full")
    assert lokr in page.shown("relevance")
    assert "#lora_trainer_set_adapter_rank" in page.shown("relevance")
    assert projects.load(projects.find(page.root, "mikori")).config.adapter.lokr_factor == 8
    config = put(put(RunConfig(), "loss.kind", "huber"), "optimizer.schedule", "constant")
    idle = relevance.meaningless(config)
    assert "loss.huber_c" not in idle
    assert idle["optimizer.minimum"] == "only with Schedule: not constant"
    assert relevance.meaningless(RunConfig())["adapter.conv_rank"].startswith("only with Layers: all, or Method: locon")


def test_a_group_tells_how_many_of_its_settings_were_changed() -> None:
    config = put(put(RunConfig(), "loss.min_snr_gamma", 5.0), "loss.debiased", True)
    config = put(config, "loss.huber_c", 0.2)  # means nothing with l2
    assert relevance.changed(config) == {"loss": 2}
    coded = re.search(r"#lora_trainer_fold_loss [^{]*\{content:\"([^\"]*)\"", relevance.style(config))
    assert coded is not None
    assert "".join(chr(int(code, 16)) for code in re.findall(r"\\([0-9a-f]{6})", coded[1])) == "2 changed"


def test_a_field_with_a_mistake_is_seen_though_it_is_hidden(page: Tab) -> None:
    page.do("set_loss_huber-c", "blur", **{"set_loss_huber-c": -1})
    style = page.shown("styles")
    assert "#lora_trainer_root #lora_trainer_steps #lora_trainer_set_loss_huber-c{display:block!important}" in style
    assert 'data-marked="lora_trainer_set_loss_huber-c"' in style


def test_the_search_knows_the_names_of_other_trainers() -> None:
    every = {field.path for field in (*fields.all_fields(), *fields.source_fields())}
    assert set(SYNONYMS) <= every
    index = re.search(r'data-index="([^"]*)"', settings_form.index_html())
    assert index is not None
    entries = json.loads(html.unescape(index[1]))
    assert set(entries) == {fields.element(path) for path in every}
    for name, path in (
        ("min_snr_gamma", "loss.min_snr_gamma"), ("ip_noise_gamma", "noise.input_perturbation"),
        ("network_dim", "adapter.rank"), ("conv_dim", "adapter.conv_rank"), ("lr_scheduler", "optimizer.schedule"),
        ("keep_tokens_separator", "data.caption.separator"), ("is_reg", "data.sources[].regularization"),
    ):  # fmt: skip
        assert name in entries[fields.element(path)]["names"]
    assert "text encoder" in entries["lora_trainer_set_adapter_text-encoder"]["words"]
