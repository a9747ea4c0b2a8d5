"""Every rule of the plan speaks where it should, and nowhere else."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.dataset.items import Concept, Item, Scan
from lib_lora_trainer.hosts.api import ModelInfo
from lib_lora_trainer.plan import checks
from lib_lora_trainer.plan.case import named, times_seen

INFO = ModelInfo("h", "sd1", "epsilon", "m.safetensors [1]", "m", "", "a" * 64, "", ("te",), 0.18, 1, "float32", "cpu")
SDXL = replace(INFO, family="sdxl", text_encoders=("te1", "te2"))
VELOCITY = replace(INFO, family="sd2", prediction="v")
GPU = replace(INFO, device="cuda")
CONFIG = RunConfig(
    data=DataConfig(sources=(SourceConfig("a"), SourceConfig("r", regularization=True))),
    adapter=AdapterConfig(rank=16, alpha=8.0),
)


def item(name: str, caption: str = "thing", **more: object) -> Item:
    path = Path(f"{name}.png")
    return Item(**{
        "path": path, "concept": "x", "repeats": 3, "width": 512, "height": 512, "caption": caption,
        "caption_file": path.with_suffix(".txt"), **more,
    })  # fmt: skip


def scan(*items: Item, concepts: tuple[Concept, ...] = ()) -> Scan:
    found = items or tuple(item(str(number)) for number in range(4))
    counted = Concept("x", Path("x"), 3, len([each for each in found if not each.regularization]))
    return Scan(found, concepts or (counted,), (), ())


SCAN = scan()


def settings(**values: object) -> RunConfig:
    """Return CONFIG with settings replaced: data__flip is data.flip."""
    config = CONFIG
    for name, value in values.items():
        config = put(config, name.replace("__", "."), value)
    return config


def sourced(**values: object) -> RunConfig:
    """Return CONFIG with fields of its first source replaced."""
    first, *others = CONFIG.data.sources
    return put(CONFIG, "data.sources", (replace(first, **values), *others))


def problems(
    config: RunConfig, found: Scan = SCAN, info: ModelInfo = INFO, images: int = 120, **more: object
) -> dict[str, Problem]:
    return {problem.where: problem for problem in checks.check(info, config, found, images, **more)}


def test_usual_settings_have_no_problem() -> None:
    assert problems(CONFIG) == {}
    assert problems(settings(training__text_encoder_until=0.5, data__cache="disk", save__keep_last=3)) == {}


FIXED = {"data__cache_text": "memory", "data__caption__shuffle": False, "adapter__text_encoder": False}
RULES = [
    # (settings, where, severity, words that the message has)
    ({"name": "a<b"}, "name", "error", "prompt"),
    ({"name": "a/b"}, "name", "error", ""),
    ({"adapter__unet": False, "adapter__text_encoder": False}, "adapter.unet", "error", "Neither"),
    ({"triggers": ("unseen",)}, "triggers", "warning", "call nothing"),
    ({"optimizer__text_learning_rate": 0.0}, "optimizer.text_learning_rate", "error", "learns nothing"),
    ({"optimizer__unet_learning_rate": 0.0}, "optimizer.unet_learning_rate", "error", "learns nothing"),
    ({"adapter__rank": 4}, "adapter.alpha", "warning", "8 is larger than the rank, 4"),
    ({"adapter__method": "locon", "adapter__conv_alpha": 9.0}, "adapter.conv_alpha", "warning", "9 is larger"),
    ({"adapter__layers": "all", "adapter__conv_alpha": 9.0}, "adapter.conv_alpha", "warning", "9 is larger"),
    ({"adapter__rank": 64, "adapter__alpha": 32.0}, "adapter.alpha", "warning", "much for 4 pictures"),
    ({"data__resolution": 2048, "data__bucket_maximum": 4096}, "data.resolution", "warning", "far above"),
    ({"data__resolution": 100, "data__bucket": False}, "data.resolution", "error", "multiple of 8"),
    ({"training__precision": "fp16"}, "training.precision", "error", "CPU"),
    ({"training__fp8_base": True}, "training.fp8_base", "note", "saves no memory"),
    ({"training__batch_size": 64}, "training.batch_size", "note", "larger than the dataset"),
    ({"training__clip_skip": 2}, "training.clip_skip", "note", "clip skip 2, h is set to 1"),
    ({"base_model": "other"}, "base_model", "warning", "planned on other"),
    ({"training__text_encoder_until": 0.0}, "training.text_encoder_until", "warning", "learns nothing"),
    (
        {"training__text_encoder_until": 0.5, "adapter__text_encoder": False},
        "training.text_encoder_until", "note", "no text encoder",
    ),
    ({"training__token_limit": 100}, "training.token_limit", "note", "75 of 100"),
    ({"training__token_limit": 224}, "training.token_limit", "note", "150 of 224"),
    ({"data__more_resolutions": (640, 512)}, "data.more_resolutions", "note", "512 is given more than once"),
    ({"data__flip": True}, "data.flip", "note", "mirrored"),
    ({"data__color": True}, "data.color", "error", "data.cache is memory"),
    ({"data__random_crop": True, "data__cache": "disk"}, "data.random_crop", "error", "data.cache is disk"),
    (
        {"data__face_crop_minimum": 2.0, "data__face_crop_maximum": 4.0},
        "data.face_crop_minimum", "error", "data.cache is memory",
    ),
    ({**FIXED, "adapter__text_encoder": True}, "data.cache_text", "error", "the text encoder is trained"),
    (
        {**FIXED, "data__caption__shuffle": True, "data__caption__dropout": 0.1},
        "data.cache_text", "error", "data.caption.shuffle and data.caption.dropout.",
    ),
    ({**FIXED, "data__caption__wildcards": True}, "data.cache_text", "error", ": data.caption.wildcards."),
    ({"loss__masked": True}, "loss.masked", "warning", "changes nothing"),
    ({"adapter__dropout": 0.6}, "adapter.dropout", "warning", "more than half"),
    ({"adapter__rank_dropout": 0.6}, "adapter.rank_dropout", "warning", "more than half"),
    ({"adapter__module_dropout": 0.6}, "adapter.module_dropout", "warning", "more than half"),
    ({"data__caption__dropout": 0.6}, "data.caption.dropout", "warning", "more than half"),
    ({"data__caption__tag_dropout": 0.6}, "data.caption.tag_dropout", "warning", "more than half"),
    ({"data__caption__dropout_every_epochs": 1}, "data.caption.dropout_every_epochs", "warning", "no epoch"),
    ({"data__caption__dropout_every_epochs": 11}, "data.caption.dropout_every_epochs", "note", "10 epochs"),
    ({"save__keep_last": 2, "save__every_epochs": 0}, "save.keep_last", "note", "nothing is saved"),
    ({"save__every_epochs": 11}, "save.every_epochs", "note", "10 epochs"),
    (
        {"samples__prompts": ("a",), "samples__every_epochs": 0, "samples__at_start": False},
        "samples.prompts", "note", "no sample",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "where", "severity", "words"), RULES)
def test_every_rule_speaks_and_is_silent_otherwise(
    values: dict[str, object], where: str, severity: str, words: str
) -> None:
    found = problems(settings(**values))
    assert found[where].severity == severity
    assert words in found[where].message
    assert found[where].fix or severity == "note" or where == "name"
    assert where not in problems(CONFIG)


QUIET = [
    {"data__color": True, "data__cache": "none"},
    {"data__random_crop": True, "data__cache": "none"},
    {"training__token_limit": 75},
    {"training__token_limit": 150},
    {"data__more_resolutions": (640, 768)},
    {"adapter__alpha": 16.0},
    {"adapter__alpha": 16.0, "adapter__rank": 64},
    {"adapter__alpha": 64.0, "adapter__rank": 16, "adapter__method": "oft"},
    {"adapter__alpha": 10.0, "adapter__rank": 8, "adapter__rank_stabilized": True},
    {"adapter__conv_alpha": 9.0},
    {"data__caption__dropout": 0.1, "data__caption__tag_dropout": 0.5},
    {"data__caption__dropout_every_epochs": 10},
    FIXED,
    {"save__keep_last": 2, "save__every_epochs": 0, "save__every_steps": 100},
    {"adapter__text_encoder": False, "optimizer__text_learning_rate": 0.0},
    {"optimizer__name": "prodigy", "optimizer__unet_learning_rate": 1.0, "optimizer__text_learning_rate": 1.0},
]


@pytest.mark.parametrize("values", QUIET, ids=str)
def test_rules_are_silent_where_nothing_is_wrong(values: dict[str, object]) -> None:
    assert problems(settings(**values)) == {}


def test_out_of_range_settings_are_told_alone() -> None:
    found = problems(settings(training__batch_size=0, training__precision="fp16", name="a<b"))
    assert list(found) == ["training.batch_size"]


def test_triggers_are_looked_for_as_captions_will_be() -> None:
    asked = settings(triggers=("SKS",))
    assert "triggers" not in problems(asked, scan(item("a", "a sks thing")))
    assert "triggers" not in problems(put(asked, "data.caption.prefix", "sks, "))
    own = put(asked, "data.sources", (replace(CONFIG.data.sources[0], suffix="sks"),))
    assert "triggers" not in problems(own)
    assert "triggers" in problems(put(asked, "data.sources", (SourceConfig("a", prefix=""),)))
    regularizing = item("r", "a thing", source=1, regularization=True)
    both = scan(item("a", "sks"), regularizing)
    assert "triggers" not in problems(asked, both)
    assert "regularization" in problems(put(asked, "data.caption.prefix", "sks"), both)["triggers"].message


def test_marks_in_captions_are_told_when_they_are_read_otherwise() -> None:
    def told(caption: str, **values: bool) -> set[str]:
        found = problems(settings(**{f"data__caption__{k}": v for k, v in values.items()}), scan(item("a", caption)))
        return {f"{where.rpartition('.')[2]} {problem.severity}" for where, problem in found.items()}

    assert told("kayoko_(blue_archive), hat") == set()
    assert told("kayoko_(blue_archive), hat", emphasis=True) == {"emphasis warning"}
    assert told(r"kayoko_\(blue archive\)", emphasis=True) == set()
    assert told(r"kayoko_\(blue archive\)") == {"emphasis warning"}
    assert told("(hat:1.2), bow") == {"emphasis note"}
    assert told("(hat:1.2), bow", emphasis=True) == set()
    assert told("{hat|bow}") == {"wildcards note"}
    assert told("{hat|bow}", wildcards=True) == set()


def test_a_sources_own_settings_decide_whether_captions_vary() -> None:
    config = settings(**FIXED)
    first, second = config.data.sources
    for own, where in (({"shuffle": True}, "data.sources[0].shuffle"), ({"caption_dropout": 0.1}, "caption_dropout")):
        found = problems(put(config, "data.sources", (replace(first, **own), second)))
        assert where in found["data.cache_text"].message
    still = settings(**{**FIXED, "data__caption__shuffle": True})
    quiet = put(still, "data.sources", tuple(replace(source, shuffle=False) for source in still.data.sources))
    assert "data.cache_text" not in problems(quiet)


def test_what_goes_on_from_a_file_trains_the_files_parts() -> None:
    config = settings(adapter__start_from="x.safetensors", data__cache_text="memory", data__caption__shuffle=False)
    assert "data.cache_text" in problems(config)
    assert "data.cache_text" not in problems(config, parts={"unet"})
    assert "adapter.text_encoder" not in problems(config, info=replace(INFO, text_encoders=()), parts={"unet"})
    unet = settings(adapter__text_encoder=False, training__text_encoder_until=0.5)
    assert "training.text_encoder_until" not in problems(unet, parts={"unet", "te"})


def test_a_host_without_a_trainable_text_encoder_is_said() -> None:
    found = problems(CONFIG, info=replace(INFO, text_encoders=()))
    assert found["adapter.text_encoder"].severity == "error"


def test_sizes_that_do_not_fit_the_family() -> None:
    assert "1024" in problems(CONFIG, info=SDXL)["data.resolution"].message
    large = settings(data__resolution=1024, data__bucket_maximum=2048)
    assert problems(large, info=SDXL) == {}
    assert problems(put(large, "data.bucket_maximum", 1536), info=SDXL)["data.bucket_maximum"].severity == "note"
    more = problems(put(large, "data.more_resolutions", (768,)), info=SDXL)
    assert list(more) == ["data.more_resolutions[0]"]
    own = put(large, "data.sources", tuple(replace(each, resolution=512) for each in large.data.sources))
    assert set(problems(own, info=SDXL)) == {"data.sources[0].resolution", "data.sources[1].resolution"}
    higher = settings(data__sources=(SourceConfig("a", resolution=1024),), data__bucket_maximum=2048)
    assert problems(higher, info=SDXL) == {}  # nothing is trained at the general 512
    assert "2048" in problems(put(higher, "data.bucket_maximum", 1024), info=SDXL)["data.bucket_maximum"].message
    ignored = problems(put(own, "data.more_resolutions", (1024 + 64,)), info=INFO)
    assert "no effect" in ignored["data.more_resolutions"].message
    assert problems(settings(training__clip_skip=2, data__resolution=1024), info=VELOCITY)["training.clip_skip"]


def test_masks_and_masked_loss_belong_together() -> None:
    masked = scan(item("a", mask=Path("m.png")))
    assert problems(CONFIG, masked)["data.sources[0].masks"].severity == "warning"
    assert problems(settings(loss__masked=True), masked) == {}
    alpha = sourced(alpha_masks=True)
    assert "data.sources[0].alpha_masks" in problems(alpha)
    assert problems(put(alpha, "loss.masked", True)) == {}
    preserved = put(sourced(prior_preservation=True), "loss.masked", True)
    assert "preserved" in problems(preserved, masked)["data.sources[0].masks"].message
    assert problems(put(preserved, "loss.mask_minimum", 0.1), masked) == {}


def test_mirrored_sides_in_captions_are_a_warning() -> None:
    sided = scan(item("a", "scar on left cheek"))
    assert problems(settings(data__flip=True), sided)["data.flip"].severity == "warning"
    assert problems(sourced(flip=True), sided)["data.sources[0].flip"].severity == "warning"
    off = put(settings(data__flip=True), "data.sources", (SourceConfig("a", flip=False),))
    assert problems(off, sided) == {}
    assert problems(settings(data__flip=True), scan(item("a", "bright leftover")))["data.flip"].severity == "note"


def test_regularization_without_weight_is_told() -> None:
    both = scan(item("a"), item("r", source=1, regularization=True))
    assert problems(settings(loss__prior_weight=0.0), both)["loss.prior_weight"].severity == "warning"
    assert problems(settings(loss__prior_weight=0.0)) == {}


@pytest.mark.parametrize(
    ("values", "info", "limit"),
    [
        ({}, INFO, 6000),
        ({"optimizer__name": "adamw8bit"}, INFO, 6000),
        ({"optimizer__name": "prodigy"}, INFO, 3000),
        ({"loss__min_snr_gamma": 5.0}, INFO, 6000),
        ({"loss__min_snr_gamma": 5.0, "noise__input_perturbation": 0.1}, INFO, 3600),
        (
            {"optimizer__name": "prodigy", "loss__min_snr_gamma": 5.0, "noise__input_perturbation": 0.1},
            INFO, 1800,
        ),
        ({}, SDXL, 3000),
        ({"optimizer__name": "prodigy"}, SDXL, 1500),
        ({"optimizer__name": "dadapt-lion"}, INFO, 6000),
        ({"optimizer__name": "dadapt-lion"}, SDXL, 6000),
    ],
)  # fmt: skip
def test_budgets_are_the_guides(values: dict[str, object], info: ModelInfo, limit: int) -> None:
    config = settings(**values)
    assert "training.epochs" not in problems(config, info=info, images=limit)
    found = problems(config, info=info, images=limit + 1)["training.epochs"]
    assert found.severity == "warning" and f"more than {limit}" in found.message


def test_the_budget_is_of_one_concept_without_regularization_images() -> None:
    concepts = (
        Concept("small", Path("s"), 1, 100),
        Concept("large", Path("l"), 3, 100),
        Concept("r", Path("r"), 1, 50, source=1, regularization=True),
    )
    # 400 training exposures and as many of regularization images: of 16000 images 6000 are of the large concept.
    assert [times_seen(concept, concepts, 16000, True) for concept in concepts] == [2000, 6000, 8000]
    assert [times_seen(concept, concepts, 9000, False) for concept in concepts] == [2000, 6000, 1000]
    assert times_seen(concepts[0], concepts[:1], 500, True) == 500
    found = scan(*SCAN.items, concepts=concepts)
    assert "training.epochs" not in problems(CONFIG, found, images=16000)
    assert "large is seen 6003" in problems(CONFIG, found, images=16008)["training.epochs"].message


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("character-")])
def test_no_recipe_for_a_character_can_exceed_its_own_budget(name: str) -> None:
    config = apply(RECIPES[name], CONFIG)
    info = SDXL if "sdxl" in name else INFO
    seen = config.training.max_steps * config.training.batch_size * config.training.accumulation
    assert "training.epochs" not in problems(config, info=info, images=seen)


def test_limits_that_the_run_never_reaches() -> None:
    config = settings(training__max_steps=5000, data__caption__warmup=300.0, optimizer__warmup=300.0)
    assert problems(config) == {}  # the length is not known
    found = problems(config, steps=200)
    assert set(found) == {"training.max_steps", "data.caption.warmup", "optimizer.warmup"}
    assert "200 steps" in found["training.max_steps"].message
    assert problems(config, steps=2500) == {}


@pytest.mark.parametrize(
    ("setting", "info", "speaks"),
    [
        ("auto", INFO, False),
        ("auto", replace(VELOCITY, zero_terminal_snr=True), False),
        ("off", replace(VELOCITY, zero_terminal_snr=True), True),
        ("off", VELOCITY, False),
        ("on", VELOCITY, True),
        ("on", replace(VELOCITY, zero_terminal_snr=True), False),
        ("on", INFO, False),  # said by diffusion.combinations
    ],
)
def test_the_noise_schedule_is_the_checkpoints(setting: str, info: ModelInfo, speaks: bool) -> None:
    assert ("noise.zero_terminal_snr" in problems(settings(noise__zero_terminal_snr=setting), info=info)) is speaks


@pytest.mark.parametrize(
    ("platform", "info", "triton", "compiler", "severity"),
    [
        ("linux", INFO, False, True, ""),
        ("linux", INFO, False, False, "warning"),
        ("linux", GPU, False, True, "error"),
        ("linux", GPU, True, True, ""),
        ("linux", GPU, True, False, "warning"),
        ("win32", GPU, False, True, "error"),
        ("win32", GPU, True, False, ""),
        ("win32", INFO, False, False, "warning"),
    ],
)
def test_compiling_needs_its_tools(
    monkeypatch: pytest.MonkeyPatch, platform: str, info: ModelInfo, triton: bool, compiler: bool, severity: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if triton else None)
    monkeypatch.setattr(shutil, "which", lambda name: name if compiler else None)
    found = problems(settings(training__compile=True), info=info)
    assert [each.severity for where, each in found.items() if where == "training.compile"] == [severity] * bool(
        severity
    )
    assert "training.compile" not in problems(CONFIG, info=info)


def test_an_unknown_sampler_is_an_error_with_the_nearest_name() -> None:
    config = settings(samples__prompts=("a",), samples__sampler="Euler A")
    (found,) = checks.sampler(config, ("DDIM", "Euler a"))
    assert found.where == "samples.sampler" and "Did you mean Euler a?" in found.fix
    assert checks.sampler(config, ("Euler A",)) == ()
    assert checks.sampler(put(config, "samples.prompts", ()), ("DDIM",)) == ()
    assert "DDIM" in checks.sampler(put(config, "samples.sampler", "qqq"), ("DDIM",))[0].fix


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    assert checks.disk(tmp_path / "new" / "folder", 1) == ()
    assert checks.disk(tmp_path, 10**18)[0].severity == "error"


def test_names_are_listed() -> None:
    assert [named(names) for names in ([], ["a"], ["a", "b"], ("a", "b", "c"))] == ["", "a", "a and b", "a, b and c"]


def test_half_precision_throughout_cannot_be_asked_for() -> None:
    """What learns nothing has no setting: what a run trains, and its optimizer, are fp32."""
    named_so = [name for name in vars(TrainingConfig()) if "full" in name or "half" in name]
    assert named_so == []
    assert not any("dtype" in name or "precision" in name for name in vars(AdapterConfig()))
