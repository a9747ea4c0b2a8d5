"""Recipes carry their guides' numbers, and mean the same whatever was set before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib_lora_trainer.adapters import loaders, methods
from lib_lora_trainer.adapters.rules import problems as rule_problems
from lib_lora_trainer.adapters.targets import Layer, Target, assign
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.captions.variants import is_fixed
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.paths import flat, put
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.recipes.recipe import DECIDED, recipe
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.buckets import bucket_problems
from lib_lora_trainer.train import optim

ANY = pytest.mark.parametrize("name", RECIPES)
GUIDES = {"g1": "LyCORIS", "g2": "Roukin8", "g3": "cake", "g4": "LoRA作成記録"}

# Each figure as the guide has it, the setting that holds it, and the range it may come from.
NUMBERS = {
    "character-g3-adamw": {
        "adapter.method": "lora", "adapter.rank": 32, "adapter.alpha": 16, "optimizer.name": "adamw",
        "optimizer.unet_learning_rate": 1e-4, "optimizer.schedule": "cosine-restarts", "optimizer.cycles": 1,
        "training.epochs": 8, "training.max_steps": (1, 6000), "training.batch_size": 1,
    },
    "character-g3-prodigy": {
        "adapter.method": "lora", "adapter.rank": 32, "adapter.alpha": 16, "optimizer.name": "prodigy",
        "optimizer.unet_learning_rate": 1, "optimizer.text_learning_rate": 1, "optimizer.weight_decay": 0.01,
        "optimizer.d_coefficient": 2, "optimizer.schedule": "annealed-cosine", "training.epochs": 8,
        "loss.min_snr_gamma": 5, "noise.input_perturbation": 0.1, "training.max_steps": (1, 3000),
        "adapter.scale_weight_norms": 0,
    },
    "character-sd1-g4": {
        "adapter.method": "lora", "adapter.rank": 16, "adapter.alpha": 4, "adapter.blocks": "IN04-07,OUT03-06",
        "optimizer.name": "dadapt-lion", "optimizer.unet_learning_rate": 1, "optimizer.text_learning_rate": 1,
        "optimizer.beta1": 0.9, "optimizer.beta2": 0.999, "optimizer.weight_decay": 0, "optimizer.d0": 1e-6,
        "training.max_steps": (4000, 6000), "training.clip_skip": 2, "data.caption.shuffle": True,
        "data.caption.keep_tokens": 1, "optimizer.schedule": "cosine-restarts",
    },
    "character-sd1": {
        "adapter.method": "lora", "adapter.rank": 16, "adapter.alpha": 4, "optimizer.name": "adamw",
        "optimizer.unet_learning_rate": 1e-4, "optimizer.text_learning_rate": 5e-5, "optimizer.schedule": "cosine",
        "training.max_steps": (4000, 6000), "training.clip_skip": 2, "adapter.blocks": "",
    },
    "character-sdxl-g4": {
        "adapter.method": "lora", "adapter.rank": 8, "adapter.alpha": 2, "optimizer.name": "dadapt-lion",
        "optimizer.unet_learning_rate": 1, "training.max_steps": (4000, 6000), "adapter.text_encoder": False,
        "data.cache_text": "memory", "data.resolution": 1024, "data.bucket_maximum": 2048,
    },
    "multi-concept-g1": {
        "adapter.method": "loha", "adapter.rank": 8, "adapter.conv_rank": 4, "adapter.alpha": 1,
        "adapter.conv_alpha": 1, "optimizer.name": "adamw8bit", "optimizer.unet_learning_rate": 2e-4,
        "optimizer.text_learning_rate": 1e-4, "optimizer.schedule": "constant", "data.resolution": 512,
        "training.clip_skip": 1,
    },
    "locon-g2": {
        "adapter.method": "locon", "adapter.rank": 16, "adapter.conv_rank": 8, "adapter.alpha": 1,
        "adapter.conv_alpha": 1, "optimizer.name": "adamw", "optimizer.unet_learning_rate": 2e-4,
        "optimizer.schedule": "constant", "training.batch_size": 8, "training.max_steps": 20_000,
    },
    "style-g3": {
        "adapter.method": "locon", "adapter.rank": (1, 64), "adapter.conv_rank": (1, 32),
        "optimizer.unet_learning_rate": 1e-4, "optimizer.text_learning_rate": 5e-5, "training.epochs": 8,
        "training.max_steps": 8 * 2 * 300,
    },
    "style-unet-only-g4": {
        "adapter.method": "lora", "adapter.rank": 16, "adapter.text_encoder": False, "adapter.unet": True,
        "optimizer.unet_learning_rate": 1e-4,
    },
    "background-g4": {
        "adapter.method": "lora", "adapter.rank": 32, "adapter.alpha": 8, "training.max_steps": (1, 4999),
        "optimizer.unet_learning_rate": 1e-4,
    },
    "object-g4": {
        "adapter.method": "locon", "adapter.rank": 64, "adapter.alpha": 1, "adapter.conv_alpha": 1,
        "training.max_steps": (9000, 99_999),
    },
    "situation-g4": {
        "adapter.method": "lora", "adapter.rank": 16, "training.max_steps": (8100, 12_000),
        "optimizer.unet_learning_rate": 1e-4,
    },
    "dora-g3": {
        "adapter.method": "locon", "adapter.weight_decompose": True, "adapter.rank": (1, 64),
        "optimizer.unet_learning_rate": 1e-4, "training.epochs": 8,
    },
    "lokr-g3": {
        "adapter.method": "lokr", "adapter.rank": (1, 32), "optimizer.unet_learning_rate": (5e-5, 8e-5),
        "optimizer.text_learning_rate": (5e-5, 8e-5),
    },
    "dylora-g3": {"adapter.method": "dylora", "adapter.rank": 64, "adapter.alpha": 32, "adapter.dylora_unit": 4},
    "ia3-prototype-g3": {
        "adapter.method": "ia3", "optimizer.unet_learning_rate": (5e-3, 1e-2),
        "optimizer.text_learning_rate": (5e-3, 1e-2),
    },
    "oft-g3": {"adapter.method": "oft", "adapter.rank": (1, 2)},
    "toy-demo": {"adapter.rank": 16, "adapter.alpha": 16, "data.resolution": 128, "training.epochs": 9},
}  # fmt: skip


def held(name: str, config: RunConfig | None = None) -> dict[str, object]:
    return dict(flat(apply(RECIPES[name], config or RunConfig())))


def changed(value: object) -> object:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return 0.123 if value is None else ("other",) if isinstance(value, tuple) else f"{value}other"


@ANY
def test_numbers_are_the_guides(name: str) -> None:
    values = held(name)
    for path, wanted in NUMBERS[name].items():
        if isinstance(wanted, tuple):
            assert wanted[0] <= values[path] <= wanted[1], path
        else:
            assert values[path] == wanted, path


def test_every_recipe_of_the_guides_is_there_and_no_other() -> None:
    assert set(NUMBERS) == set(RECIPES)
    assert next(iter(RECIPES)) == "character-g3-adamw"
    assert next(reversed(RECIPES)) == "toy-demo"


@ANY
def test_a_recipe_means_the_same_after_any_other(name: str) -> None:
    for other in RECIPES.values():
        assert apply(RECIPES[name], apply(other, RunConfig())) == apply(RECIPES[name], RunConfig()), other.name


@ANY
def test_a_recipe_means_the_same_whatever_was_set(name: str) -> None:
    fresh, dirty = RunConfig(), RunConfig()
    for path, value in flat(fresh):
        if path != "data.sources":
            dirty = put(dirty, path, changed(value))
    assert {path: held(name, dirty)[path] for path in DECIDED} == {path: held(name)[path] for path in DECIDED}
    left = {path: value for path, value in flat(dirty) if path not in DECIDED}
    assert {path: value for path, value in held(name, dirty).items() if path in left} == left


def test_what_is_the_users_stays() -> None:
    users = {path for path, _ in flat(RunConfig())} - set(DECIDED)
    assert {"name", "triggers", "comment", "base_model", "data.sources", "training.seed", "training.precision"} <= users
    assert not any(path.startswith(("save.", "samples.")) for path in DECIDED)
    assert set(DECIDED) <= {path for path, _ in flat(RunConfig())}


@ANY
def test_a_recipe_is_valid_and_names_its_guide(name: str) -> None:
    made, about = apply(RECIPES[name], RunConfig()), RECIPES[name]
    assert range_problems(made) == []
    assert bucket_problems(made.data) == ()
    assert set(about.settings) == set(DECIDED)
    assert about.name == name and about.text.endswith(".")
    suffix = name.rpartition("-")[2]
    assert GUIDES.get(suffix, "") in about.guide
    family = "sdxl" if "sdxl" in name else "sd1"
    assert rule_problems(made.adapter, family) == ()


@ANY
def test_a_recipe_does_not_contradict_itself(name: str) -> None:
    made = apply(RECIPES[name], RunConfig())
    if made.optimizer.name in ("prodigy", "dadapt-lion"):
        assert made.optimizer.unet_learning_rate == made.optimizer.text_learning_rate == 1
        assert made.adapter.scale_weight_norms == 0
    if made.data.cache_text != "none":
        assert is_fixed(made.data.caption) and not made.adapter.text_encoder
    if made.adapter.method == "dylora":
        assert made.adapter.rank % made.adapter.dylora_unit == 0 == made.adapter.conv_rank % made.adapter.dylora_unit
    if "sdxl" in name:
        assert made.data.resolution == 1024 and made.data.bucket_maximum == 2 * made.data.resolution


@ANY
def test_a_recipe_can_run(name: str) -> None:
    config = apply(RECIPES[name], RunConfig())
    family: Family = "sdxl" if "sdxl" in name else "sd1"
    found = [*methods.problems(config.adapter), *optim.problems(config, "cuda")]
    missing = [problem for problem in found if problem.where == "optimizer.name" and "needs" in problem.message]
    assert found == missing  # a package that is not installed here is told with the command that adds it
    hosts = [problem for host in ("webui", "standalone") for problem in loaders.problems(host, family, config.adapter)]
    assert [problem.severity for problem in hosts] == ["warning"] * (config.adapter.method == "oft")
    linear = Target(Layer("unet", "input_blocks.4.1.transformer_blocks.0.attn1.to_k", 64, 32), torch.nn.Linear(64, 32))
    conv = Target(Layer("unet", "input_blocks.4.0.in_layers.2", 32, 64, 3, True), torch.nn.Conv2d(32, 64, 3, padding=1))
    for target, each in assign([linear.layer, conv.layer], config.adapter, family).items():
        adapted = linear if target == linear.layer else conv
        adapter = methods.build(adapted, each, config.adapter, 1)
        assert sum(p.numel() for p in adapter.parameters() if p.requires_grad) > 0
        assert {p.dtype for p in adapter.parameters()} == {torch.float32}


def test_the_toy_demo_has_the_values_it_always_had() -> None:
    plain = RunConfig(name="mine", data=DataConfig(sources=(SourceConfig("a"),)))
    changes = {path: value for path, value in held("toy-demo", plain).items() if dict(flat(plain))[path] != value}
    assert changes == {
        "data.resolution": 128,
        "data.bucket": False,
        "adapter.alpha": 16.0,
        "optimizer.unet_learning_rate": 1e-3,
        "optimizer.text_learning_rate": 1e-3,
        "training.epochs": 9,
        "training.batch_size": 4,
    }


def test_a_recipe_cannot_set_what_others_would_leave() -> None:
    with pytest.raises(KeyError, match=r"x: training\.seed"):
        recipe("x", "", "", {"training.seed": 1})


def test_applying_leaves_the_given_configuration_alone() -> None:
    config = replace(RunConfig(), name="mine")
    apply(RECIPES["locon-g2"], config)
    assert config == replace(RunConfig(), name="mine")
