"""Files of other trainers: every key is accounted for, and what maps has the meaning it has there."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from lib_lora_trainer.base import codec
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.importing import Imported, documents, read
from lib_lora_trainer.config.paths import flat
from lib_lora_trainer.config.run import RunConfig

EXAMPLES = Path(__file__).parent / "imported"
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".toml", ".json"))


def changed(config: RunConfig) -> dict:
    """Return the settings that are not ours by default, without the sources."""
    usual = dict(flat(RunConfig()))
    return {path: value for path, value in flat(config) if value != usual[path] and path != "data.sources"}


def own(source) -> dict:
    """Return what one source says."""
    return codec.to_mapping(source) | {"path": Path(source.path).name}


def keys(found: Imported) -> set[str]:
    return {name for name, _ in found.mapped} | {left.key for left in found.unmapped} | set(found.silent)


def leaves(value, path: str = ""):
    """Yield the path of every value in a file, as a person would write it."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    elif isinstance(value, list) and path.endswith("_args") and value:
        yield from (f"{path}.{str(item).partition('=')[0]}" for item in value)
    else:
        yield path


def accounted(path: str, found: Imported) -> bool:
    """Tell whether a leaf, what it is part of, or what it holds has an outcome."""
    known = keys(found)
    return any(path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.") for key in known)


def write(folder: Path, content: dict, name: str = "run.json") -> Path:
    place = folder / name
    place.write_text(json.dumps(content), encoding="utf-8")
    return place


def reason(found: Imported, key: str) -> str:
    return " ".join(left.reason for left in found.unmapped if left.key == key)


# --- every key


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_key_is_dropped_silently(path):
    found = read(path)
    content = documents.table(path)
    missing = [leaf for leaf in leaves(content) if not accounted(leaf, found)]
    assert missing == [] and len(list(leaves(content))) > 5
    assert all(key for key, _ in found.mapped) and all(left.key for left in found.unmapped)
    assert all(left.reason.endswith(".") and len(left.reason) > 15 for left in found.unmapped)
    settings = {setting.partition("[")[0] for _, setting in found.mapped}
    assert settings <= {path for path, _ in flat(RunConfig())}
    text = codec.to_toml(found.config)
    assert codec.from_toml(RunConfig, text, "again") == found.config and not range_problems(found.config)


@pytest.mark.parametrize(
    ("name", "silent"),
    [
        ("sd_scripts_flat.toml", "lr_scheduler_power max_train_steps perlin_noise save_model_as v_parameterization"),
        ("dataset.toml", "datasets[1].network_multiplier general.caption_separator"),
        ("dataset_sizes.json", ""),
    ],
)
def test_only_what_means_off_or_default_is_silent(name, silent):
    assert sorted(read(EXAMPLES / name).silent) == silent.split()


@pytest.mark.parametrize("strange", ["abc", -1, 1e300, [], [1, "x"], {}, {"a": 1}, True, None, "", "1,2,3", 10**400])
@pytest.mark.parametrize("name", ["sd_scripts_flat.toml", "easy_training.toml", "kohya_gui.json", "dataset.toml"])
def test_strange_values_are_named_and_never_stop_the_import(name, strange, tmp_path):
    content = copy.deepcopy(dict(documents.table(EXAMPLES / name)))
    places = [(content, key) for key in content if not isinstance(content[key], (dict, list))]
    tables = [table for table in content.values() if isinstance(table, dict)]
    tables += [inner for table in tables for inner in table.values() if isinstance(inner, dict)]
    tables += [subset for part in content.get("datasets", []) for subset in [part, *part["subsets"]]]
    tables += content.get("subsets", [])
    places += [(table, key) for table in tables for key in table if not isinstance(table[key], (dict, list))]
    for table, key in places:
        table[key] = strange
    found = read(write(tmp_path, content))
    assert not range_problems(found.config)
    assert [leaf for leaf in leaves(content) if not accounted(leaf, found)] == []


def test_secrets_are_not_shown():
    for name, key in (("kohya_gui.json", "huggingface_token"), ("sd_scripts_flat.toml", "wandb_api_key")):
        left = {left.key: left.value for left in read(EXAMPLES / name).unmapped}
        assert left[key] == "(not shown)"


# --- whole files


def test_sd_scripts_flat():
    found = read(EXAMPLES / "sd_scripts_flat.toml")
    assert found.kind == "sd-scripts" and [path.name for path in found.files] == ["sd_scripts_flat.toml", "prompts.txt"]
    assert changed(found.config) == {
        "name": "harbour-style",
        "data.caption.extensions": (".txt",), "data.caption.keep_tokens": 2, "data.caption.dropout": 0.05,
        "data.caption.tag_dropout": 0.1, "data.caption.warmup": 0.2, "data.caption.emphasis": True,
        "data.resolution": 627,  # √(512 · 768)
        "data.bucket_minimum": 320, "data.bucket_maximum": 1280, "data.bucket_step": 32, "data.no_upscale": True,
        "data.face_crop_minimum": 2.0, "data.face_crop_maximum": 4.0, "data.cache": "disk",
        "adapter.method": "loha", "adapter.layers": "attention-mlp", "adapter.dropout": 0.1, "adapter.tucker": True,
        "adapter.scale_weight_norms": 1.0,
        "optimizer.name": "adamw8bit", "optimizer.arguments": ("block_wise=True",), "optimizer.weight_decay": 0.05,
        "optimizer.beta1": 0.9, "optimizer.beta2": 0.98, "optimizer.epsilon": 1e-6,
        "optimizer.unet_learning_rate": 2e-4, "optimizer.text_learning_rate": 1e-4, "optimizer.gradient_clip": 0.5,
        "optimizer.schedule": "cosine-restarts", "optimizer.cycles": 3, "optimizer.warmup": 0.05,
        "loss.kind": "smooth-l1", "loss.huber_schedule": "exponential", "loss.huber_c": 0.2, "loss.huber_scale": 1.5,
        "loss.min_snr_gamma": 5.0, "loss.prior_weight": 0.8,
        "noise.offset": 0.05, "noise.offset_random": True, "noise.adaptive_offset": 0.01,
        "noise.input_perturbation": 0.1, "noise.minimum_timestep": 50, "noise.maximum_timestep": 900,
        "noise.zero_terminal_snr": "on",
        "training.epochs": 12, "training.batch_size": 4, "training.accumulation": 2, "training.precision": "fp16",
        "training.gradient_checkpointing": True, "training.seed": 42, "training.clip_skip": 2,
        "training.token_limit": 150,
        "save.every_epochs": 2, "save.keep_last": 3, "save.precision": "bf16", "save.tensorboard": True,
        "samples.prompts": ("harbour at night, boats", "harbour in fog"), "samples.negative": "blurry, text",
        "samples.width": 512, "samples.height": 768, "samples.seed": 7, "samples.steps": 28, "samples.guidance": 6.5,
    }  # fmt: skip
    first, second = found.config.data.sources
    assert first == SourceConfig(path=str(EXAMPLES / "pictures"))
    assert second == SourceConfig(path=str(EXAMPLES / "regularization"), regularization=True)
    assert {left.key for left in found.unmapped} == {
        "pretrained_model_name_or_path", "xformers", "full_fp16", "max_data_loader_n_workers", "wandb_api_key",
        "output_dir", "network_args.bypass_mode", "network_args.made_up", "text_encoder_lr", "log_with", "logging_dir",
        "train_data_dir", "reg_data_dir", "not_of_sd_scripts",
    }  # fmt: skip
    assert ("optimizer_args.betas", "optimizer.beta2") in found.mapped


def test_sd_scripts_with_sections_and_a_dataset_of_its_own():
    found = read(EXAMPLES / "sd_scripts_sections.toml")
    assert [path.name for path in found.files] == ["sd_scripts_sections.toml", "dataset.toml"]
    assert changed(found.config) == {
        "data.caption.extensions": (".txt",), "data.caption.keep_tokens": 0, "data.resolution": 1024,
        "adapter.method": "locon", "adapter.rank": 32, "adapter.alpha": 32.0, "adapter.conv_rank": 4,
        "adapter.conv_alpha": 1.0, "adapter.text_encoder": False,
        "adapter.rules": ("IN00-03: off", "IN04-07: lr=0.5", "OUT04: lr=0.25"),
        "optimizer.name": "prodigy", "optimizer.unet_learning_rate": 0.5, "optimizer.text_learning_rate": 0.5,
        "optimizer.arguments": ("decouple=True", "use_bias_correction=False", "safeguard_warmup=False"),
        "optimizer.weight_decay": 0.0, "optimizer.d_coefficient": 1.5, "optimizer.lora_plus_ratio": 4.0,
        "optimizer.schedule": "constant", "optimizer.warmup": 100.0,
        "loss.debiased": True, "loss.masked": True,
        "noise.pyramid_iterations": 6, "noise.zero_terminal_snr": "off",
        "training.epochs": 3000, "training.max_steps": 3000, "training.batch_size": 2, "training.precision": "bf16",
        "training.fp8_base": True, "training.token_limit": 75,
        "save.every_steps": 500, "save.keep_last": 4, "samples.every_epochs": 0, "samples.every_steps": 250,
    }  # fmt: skip
    assert "again as training.learning_rate" in reason(found, "optimizer.learning_rate")
    assert "does not count" in reason(found, "dataset.train_data_dir")
    assert "missing.txt" in reason(found, "samples.sample_prompts")
    assert ("dataset.dataset_config", "data.sources") in found.mapped
    assert found.config.data.sources == read(EXAMPLES / "dataset.toml").config.data.sources


def test_dataset_alone():
    found = read(EXAMPLES / "dataset.toml")
    assert found.kind == "sd-scripts dataset"
    keeper, harbour, regular = found.config.data.sources
    assert own(keeper) == {
        "path": "10_tower keeper", "repeats": 5, "recursive": False, "fallback_caption": "tower keeper",
        "regularization": False, "prior_preservation": False, "masks": str(EXAMPLES / "masks"), "alpha_masks": False,
        "resolution": 1024, "flip": False, "keep_tokens": 3,
    }  # fmt: skip
    assert (harbour.repeats, harbour.flip, harbour.keep_tokens, harbour.prior_preservation) == (1, True, 1, True)
    assert (regular.regularization, regular.alpha_masks, regular.resolution) == (True, True, 768)
    # What a dataset does not speak of stays as it is here.
    assert found.config.adapter == RunConfig().adapter and found.config.optimizer == RunConfig().optimizer
    assert "the first is taken" in reason(found, "datasets[1].batch_size") and found.config.training.batch_size == 2
    assert "note" in reason(found, "datasets[0].subsets[1].custom_attributes")
    assert reason(found, "datasets[1].unheard_of")


def test_the_same_pictures_in_several_sizes():
    found = read(EXAMPLES / "dataset_sizes.json").config.data
    assert (found.resolution, found.more_resolutions) == (1024, (627,))
    assert len(found.sources) == 1 and found.sources[0].resolution is None and found.sources[0].repeats == 10


def test_easy_training():
    found = read(EXAMPLES / "easy_training.toml")
    assert found.kind == "LoRA_Easy_Training_Scripts"
    assert changed(found.config) == {
        "name": "tower-v1", "comment": "trigger: towerkeeper",
        "data.caption.extensions": (".txt",), "data.caption.shuffle": False, "data.caption.keep_tokens": 0,
        "data.caption.warmup": 300.0, "data.caption.warmup_tags": 2, "data.resolution": 768,
        "data.bucket_maximum": 1536,
        "adapter.method": "lokr", "adapter.rank": 32, "adapter.alpha": 16.0, "adapter.conv_rank": 16,
        "adapter.conv_alpha": 8.0, "adapter.layers": "all", "adapter.norms": True, "adapter.dropout": 0.1,
        "adapter.weight_decompose": True, "adapter.lokr_factor": 8,
        "optimizer.unet_learning_rate": 2e-4, "optimizer.text_learning_rate": 1e-4, "optimizer.weight_decay": 0.1,
        "optimizer.beta1": 0.9, "optimizer.beta2": 0.99, "optimizer.schedule": "annealed-cosine",
        "optimizer.cycles": 4, "optimizer.cycle_decay": 0.9, "optimizer.minimum": 0.005,
        "loss.kind": "huber", "loss.huber_c": 0.15, "loss.min_snr_gamma": 8.0, "loss.debiased": True,
        "noise.pyramid_iterations": 8, "noise.pyramid_discount": 0.4, "noise.input_perturbation": 0.05,
        "noise.zero_terminal_snr": "off",
        "training.batch_size": 2, "training.precision": "bf16", "training.seed": 23, "training.clip_skip": 2,
        "save.tensorboard": True,
    }  # fmt: skip
    first, second = found.config.data.sources
    assert (first.path, first.repeats, first.shuffle, first.keep_tokens) == ("C:/pictures/tower", 4, True, 1)
    assert (second.regularization, second.shuffle, second.caption_dropout) == (True, False, 0.0)
    assert "CAME" in reason(found, "optimizer_args.args.optimizer_type")
    assert "no effect there" in reason(found, "optimizer_args.args.huber_scale")
    assert "first is taken" in reason(found, "subsets[1].color_aug")
    assert found.config.optimizer.cycle_warmup == 0.1
    assert ("optimizer_args.args.warmup_ratio", "optimizer.cycle_warmup") in found.mapped


def test_kohya_gui():
    found = read(EXAMPLES / "kohya_gui.json")
    assert found.kind == "kohya_ss"
    assert changed(found.config) == {
        "name": "tower-locon",
        "data.caption.extensions": (".txt",), "data.caption.shuffle": False, "data.caption.dropout": 0.05,
        "data.caption.tag_dropout": 0.15, "data.resolution": 1024, "data.bucket_maximum": 2048,
        "data.no_upscale": True, "data.cache_text": "memory",
        "adapter.method": "locon", "adapter.rank": 32, "adapter.alpha": 16.0, "adapter.text_encoder": False,
        "adapter.layers": "all", "adapter.module_dropout": 0.1, "adapter.weight_decompose": True,
        "adapter.tucker": True,
        "optimizer.name": "lion", "optimizer.weight_decay": 0.1, "optimizer.beta1": 0.95, "optimizer.beta2": 0.98,
        "optimizer.schedule": "polynomial", "optimizer.power": 2.0, "optimizer.warmup": 0.1,
        "loss.min_snr_gamma": 5.0, "noise.offset": 0.05, "noise.input_perturbation": 0.1,
        "noise.input_perturbation_random": True, "noise.zero_terminal_snr": "off",
        "training.epochs": 8, "training.batch_size": 2, "training.precision": "bf16",
        "training.gradient_checkpointing": True, "training.clip_skip": 2, "training.token_limit": 75,
        "samples.prompts": ("tower at dawn", "tower at dusk"), "samples.every_epochs": 0, "samples.every_steps": 200,
        "samples.seed": 3, "samples.width": 1024, "samples.height": 1024,
    }  # fmt: skip
    assert {left.key for left in found.unmapped} == {
        "pretrained_model_name_or_path", "sdxl", "xformers", "sdxl_no_half_vae", "num_cpu_threads_per_process",
        "huggingface_repo_id", "huggingface_token", "save_state", "metadata_author", "output_dir", "train_data_dir",
        "sample_prompts", "dora_wd",
    }  # fmt: skip
