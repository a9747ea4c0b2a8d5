"""Arguments that are one setting here, and arguments that are none, each with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

from lib_lora_trainer.config.importing import values
from lib_lora_trainer.config.importing.outcomes import Argument, Arguments, Leave, Outcome, Put, Silent, one

_PRECISIONS = {"no": "fp32", "float": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
_LOSSES = {"l2": "l2", "l1": "l1", "huber": "huber", "smooth_l1": "smooth-l1", "smooth l1": "smooth-l1"}
_HUBER = {name: name for name in ("constant", "exponential", "snr")}

# Name → setting, converter, and sd-scripts' default where it shapes the weights and is not ours.
_DIRECT: MappingProxyType[str, tuple[str, Callable[[Any], Any], Any]] = MappingProxyType({
    "output_name": ("name", values.text, None),
    "training_comment": ("comment", values.text, None),
    "network_dropout": ("adapter.dropout", values.number, None),
    "scale_weight_norms": ("adapter.scale_weight_norms", values.number, None),
    "loss_type": ("loss.kind", values.choice(_LOSSES), None),
    "huber_schedule": ("loss.huber_schedule", values.choice(_HUBER), None),
    "huber_c": ("loss.huber_c", values.number, None),
    "min_snr_gamma": ("loss.min_snr_gamma", values.number, None),
    "debiased_estimation_loss": ("loss.debiased", values.switch, None),
    "v_pred_like_loss": ("loss.v_like", values.number, None),
    "scale_v_pred_loss_like_noise_pred": ("loss.scale_v_like_noise", values.switch, None),
    "masked_loss": ("loss.masked", values.switch, None),
    "noise_offset": ("noise.offset", values.number, None),
    "noise_offset_random_strength": ("noise.offset_random", values.switch, None),
    "adaptive_noise_scale": ("noise.adaptive_offset", values.number, None),
    "multires_noise_iterations": ("noise.pyramid_iterations", values.whole, None),
    "multires_noise_discount": ("noise.pyramid_discount", values.number, None),
    "ip_noise_gamma": ("noise.input_perturbation", values.number, None),
    "ip_noise_gamma_random_strength": ("noise.input_perturbation_random", values.switch, None),
    "min_timestep": ("noise.minimum_timestep", values.whole, None),
    "seed": ("training.seed", values.whole, None),
    "gradient_accumulation_steps": ("training.accumulation", values.whole, None),
    "mixed_precision": ("training.precision", values.choice(_PRECISIONS), "fp32"),
    "gradient_checkpointing": ("training.gradient_checkpointing", values.switch, None),
    "weighted_captions": ("data.caption.emphasis", values.switch, None),
    "save_every_n_epochs": ("save.every_epochs", values.whole, None),
    "save_every_n_steps": ("save.every_steps", values.whole, None),
    "save_precision": ("save.precision", values.choice(_PRECISIONS), None),
})  # fmt: skip
_MODEL = "The checkpoint that the WebUI has loaded is trained, and it says what it is. Load the one you want."
_ATTENTION = "Attention is computed as the WebUI is set up to."
_MEMORY = "How memory is spared there; see training.offload and training.fp8_base here."
_HALF = "The adapter itself is always trained in fp32 here; in half precision it hardly learns."
_SPEED = "Only how fast pictures are read."
_START = "How the other trainer is started and spread over machines."
_HUB = "Nothing is uploaded from here."
_LOG = "Logs are written for TensorBoard alone here; see save.tensorboard."
_STATE = "Resume points of another trainer cannot be read; this one writes its own."
_CARD = "The file's metadata has name, triggers and comment here."
_VALIDATION = "No pictures are set aside for validation here."
_OTHER = "Only SD1, SD2 and SDXL are trained here."
_LEFT: MappingProxyType[str, str] = MappingProxyType({
    **dict.fromkeys(("pretrained_model_name_or_path", "vae", "v2", "v_parameterization", "sdxl"), _MODEL),
    "train_inpainting": "Inpainting models are not trained here.",
    **dict.fromkeys(("xformers", "sdpa", "mem_eff_attn", "attn_mode", "split_attn"), _ATTENTION),
    **dict.fromkeys(
        ("lowram", "highvram", "lowvram", "no_half_vae", "vae_batch_size", "cpu_offload_checkpointing",
         "blocks_to_swap", "fused_backward_pass", "text_encoder_batch_size"), _MEMORY,
    ),
    **dict.fromkeys(("full_fp16", "full_bf16"), _HALF),
    **dict.fromkeys(
        ("max_data_loader_n_workers", "persistent_data_loader_workers", "skip_cache_check",
         "disable_mmap_load_safetensors", "tokenizer_cache_dir"), _SPEED,
    ),
    **dict.fromkeys(
        ("dynamo_mode", "dynamo_use_fullgraph", "dynamo_use_dynamic", "extra_accelerate_launch_args", "gpu_ids",
         "main_process_port", "multi_gpu", "num_cpu_threads_per_process", "num_machines", "num_processes",
         "ddp_timeout", "ddp_gradient_as_bucket_view", "ddp_static_graph", "deepspeed", "zero_stage",
         "config_file", "output_config", "console_log_level", "console_log_file", "console_log_simple"), _START,
    ),
    **dict.fromkeys(
        ("huggingface_repo_id", "huggingface_token", "huggingface_repo_type", "huggingface_repo_visibility",
         "huggingface_path_in_repo", "save_state_to_huggingface", "resume_from_huggingface", "async_upload"), _HUB,
    ),
    **dict.fromkeys(
        ("log_prefix", "log_tracker_name", "log_tracker_config", "log_config", "wandb_api_key", "wandb_run_name",
         "use_wandb"), _LOG,
    ),
    **dict.fromkeys(
        ("resume", "save_state", "save_state_on_train_end", "save_last_n_epochs_state", "save_last_n_steps_state",
         "initial_epoch", "initial_step", "skip_until_initial_step"), _STATE,
    ),
    **dict.fromkeys(
        ("metadata_title", "metadata_author", "metadata_description", "metadata_license", "metadata_tags"), _CARD
    ),
    "no_metadata": "The file always carries its metadata here.",
    **dict.fromkeys(("validate_every_n_epochs", "validate_every_n_steps", "max_validation_steps"), _VALIDATION),
    **dict.fromkeys(
        ("weighting_scheme", "logit_mean", "logit_std", "mode_scale", "discrete_flow_shift", "timestep_sampling",
         "sigmoid_scale", "model_prediction_type", "guidance_scale", "ae", "clip_l", "clip_g", "t5xxl",
         "t5xxl_max_token_length", "apply_t5_attn_mask", "split_mode", "train_blocks"), _OTHER,
    ),
    "output_dir": "Adapters are written into the WebUI's Lora folder.",
    "save_model_as": "Adapters are always written as .safetensors.",
    "perlin_noise": "There is no Perlin noise here; noise.pyramid_iterations is near.",
    "base_weights": "No other adapter is merged before training. Merge it into the checkpoint first.",
    "base_weights_multiplier": "No other adapter is merged before training.",
    "in_json": "Captions in a metadata file are not read. Write each beside its picture as a .txt file.",
    "dataset_class": "Datasets are read from folders alone.",
    "optimizer_schedulefree_wrapper": "No optimizer is wrapped here; there are schedulefree-adamw and -prodigy.",
    "schedulefree_wrapper_args": "No optimizer is wrapped here.",
    "use_safetensors": "Adapters are always written as .safetensors.",
    "no_token_padding": "Captions are padded as the WebUI pads prompts.",
    "stop_text_encoder_training": "It has no effect on adapters there; training.text_encoder_until does it here.",
    "tag_occurrence": "How often tags occur is written into every file here.",
    "tag_file_location": "How often tags occur is written into every file here.",
    "save_toml": "The run's settings are kept with it here.",
    "save_toml_location": "The run's settings are kept with it here.",
})  # fmt: skip
_USUAL = MappingProxyType(
    {"save_model_as": "safetensors", "num_processes": 1, "num_machines": 1, "dynamo_mode": "default"}
)
_IGNORED = ("epoch", "noise_offset_type")
"""The GUI of kohya_ss writes them into its files for sd-scripts, which does not know them."""


def translate(arguments: Arguments) -> Iterator[Outcome]:
    """Yield what becomes of every argument that needs no other one to be understood."""
    for name, (setting, convert, default) in _DIRECT.items():
        yield from one(arguments, name, setting, convert, default)
    yield from _huber_scale(arguments)
    yield from _largest_timestep(arguments)
    yield from _zero_terminal(arguments)
    for name, reason in _LEFT.items():
        argument = arguments.get(name)
        if argument is not None:
            usual = values.is_off(argument.value) or argument.value == _USUAL.get(name)
            yield Silent(argument.key) if usual else Leave(argument.key, argument.value, reason)
    yield from (Silent(arguments[name].key) for name in _IGNORED if name in arguments)


def _huber_scale(arguments: Arguments) -> Iterator[Outcome]:
    """Yield the factor of the border, which sd-scripts ignores in its usual schedule, snr, and which counts here."""
    schedule = arguments.get("huber_schedule", Argument("", "snr"))
    argument = arguments.get("huber_scale")
    if argument is not None and str(schedule.value or "snr").lower() == "snr":
        text = "It has no effect there with the schedule snr, but would have here."
        yield (
            Silent(argument.key) if argument.value in (1, "1", None, "") else Leave(argument.key, argument.value, text)
        )
        return
    yield from one(arguments, "huber_scale", "loss.huber_scale", values.number)


def _largest_timestep(arguments: Arguments) -> Iterator[Outcome]:
    argument = arguments.get("max_timestep")
    if argument is not None and values.is_off(argument.value):
        yield Silent(argument.key)
        return
    yield from one(arguments, "max_timestep", "noise.maximum_timestep", values.whole)


def _zero_terminal(arguments: Arguments) -> Iterator[Outcome]:
    """Yield whether the schedule is rescaled; sd-scripts does it on demand alone, whatever the checkpoint."""
    argument = arguments.get("zero_terminal_snr", Argument("", False))
    off = values.is_off(argument.value)
    yield Put(argument.key, "noise.zero_terminal_snr", "off" if off else "on")
