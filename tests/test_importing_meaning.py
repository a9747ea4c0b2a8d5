"""What single keys of other trainers mean here: methods, optimizers, rates, lengths, blocks, folders, prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_lora_trainer.adapters import rules
from lib_lora_trainer.base import codec
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.importing import Imported, read
from lib_lora_trainer.config.run import RunConfig

EXAMPLES = Path(__file__).parent / "imported"
RUN = {"network_dim": 8, "network_alpha": 4, "learning_rate": 1e-4, "max_train_epochs": 4}


@pytest.fixture
def run(tmp_path):
    """Return a function from keys of sd-scripts, beside `RUN`, to what is read; None takes one of `RUN` away."""

    def load(content: dict | None = None, /, **more) -> Imported:
        wanted = {**RUN, **(content or {}), **more}
        place = tmp_path / "run.json"
        place.write_text(json.dumps({key: value for key, value in wanted.items() if value is not None}))
        return read(place)

    return load


@pytest.fixture
def gui(tmp_path):
    """Return a function from changes of the GUI's example to what is read."""

    def load(**more) -> Imported:
        place = tmp_path / "gui.json"
        place.write_text(json.dumps({**json.loads((EXAMPLES / "kohya_gui.json").read_text()), **more}))
        return read(place)

    return load


def reason(found: Imported, key: str) -> str:
    return " ".join(left.reason for left in found.unmapped if left.key == key)


# --- the other trainer's defaults


def test_absent_keys_have_the_other_trainers_defaults(run):
    found = run(network_dim=None, network_alpha=None, learning_rate=None, max_train_epochs=None, seed=3, v2=False,
                output_name="x", resolution=512)  # fmt: skip
    config = found.config
    assert (config.adapter.rank, config.adapter.alpha, config.adapter.method) == (4, 1.0, "lora")
    assert config.optimizer.unet_learning_rate == config.optimizer.text_learning_rate == 2e-6
    assert (config.optimizer.schedule, config.optimizer.name) == ("constant", "adamw")
    assert (config.training.max_steps, config.training.epochs, config.training.precision) == (1600, 1600, "fp32")
    assert (config.training.clip_skip, config.training.token_limit, config.training.batch_size) == (1, 75, 1)
    assert (config.data.caption.shuffle, config.data.caption.keep_tokens, config.data.bucket) == (False, 0, False)
    assert config.data.caption.extensions == (".caption", ".txt")
    assumed = dict(found.assumed)
    assert assumed["adapter.rank"] == 4 and assumed["training.max_steps"] == 1600
    assert "optimizer.name" not in assumed, "what is our default as well needs no word"
    assert not {setting for _, setting in found.mapped} & set(assumed)


# --- the adapter


@pytest.mark.parametrize(
    ("keys", "method", "layers", "text_encoder"),
    [
        ({}, "lora", "auto", True),
        ({"network_module": "networks.lora"}, "lora", "auto", True),
        ({"network_module": "networks.lora", "network_args": ["conv_dim=4"]}, "locon", "auto", True),
        ({"network_module": "networks.lora", "network_args": ["conv_dim=0"]}, "lora", "auto", True),
        ({"network_module": "networks.dylora", "network_args": ["unit=2"]}, "dylora", "attention-mlp", True),
        ({"network_module": "networks.loha"}, "loha", "attention-mlp", True),
        ({"network_module": "networks.lokr", "network_args": ["conv_dim=4"]}, "lokr", "auto", True),
        ({"network_module": "networks.oft"}, "oft", "attention", False),
        ({"network_module": "networks.oft", "network_args": ["enable_all_linear=1"]}, "oft", "attention-mlp", False),
        ({"network_module": "lycoris.kohya"}, "locon", "all", True),
        ({"network_module": "lycoris.kohya", "network_args": ["algo=lokr", "preset=full-lin"]}, "lokr", "linear", True),
        ({"network_module": "lycoris.kohya", "network_args": ["preset=attn-only"]}, "lora", "attention", True),
        ({"network_module": "lycoris.kohya", "network_args": "algo=diag-oft"}, "oft", "all", True),
        ({"network_module": "lycoris.kohya", "network_args": ["algo=ia3", "preset=full"]}, "ia3", "auto", True),
        ({"network_module": "lycoris.kohya", "network_args": ["algo=loha", "preset=unet-only"]}, "loha", "all", False),
        ({"network_train_unet_only": True}, "lora", "auto", False),
    ],
)  # fmt: skip
def test_methods(run, keys, method, layers, text_encoder):
    adapter = run(keys).config.adapter
    assert (adapter.method, adapter.layers, adapter.text_encoder) == (method, layers, text_encoder)


def test_files_without_an_adapter_are_told_apart(run, gui):
    assert "whole checkpoints" in reason(run(network_dim=None, resolution=512), "network_module")
    assert reason(run(), "network_module") == "" and reason(gui(), "network_module") == ""


def test_ranks_of_convolutions(run):
    lycoris = run(network_module="lycoris.kohya", network_args=["conv_alpha=2"]).config.adapter
    assert (lycoris.conv_rank, lycoris.conv_alpha) == (8, 2.0), "LyCORIS takes the rank of linear layers"
    native = run(network_module="networks.lora", network_args=["conv_dim=16"]).config.adapter
    assert (native.conv_rank, native.conv_alpha) == (16, 1.0)
    assert run(network_alpha=0).config.adapter.alpha == 8, "0 is the rank"
    assert run(network_module="networks.dylora").config.adapter.dylora_unit == 1


def test_adapters_that_do_not_exist_here_are_named(run):
    assert "not offered" in reason(run(network_module="networks.lora_flux"), "network_module")
    assert "LoRA-FA" in reason(run(network_module="networks.lora_fa"), "network_module")
    found = run(network_module="lycoris.kohya", network_args=["algo=tlora", "preset=my.toml", "dora_wd=True"])
    assert "'tlora' does not exist here" in reason(found, "network_args.algo")
    assert "preset is not known" in reason(found, "network_args.preset")
    assert "over the inputs" in reason(found, "network_args.dora_wd")
    oft = run(network_module="networks.oft", network_alpha=0.001)
    assert "number of blocks" in reason(oft, "network_dim") and oft.config.adapter.oft_constraint == 0.001


def test_lora_plus(run):
    found = run(network_args=["loraplus_lr_ratio=16"])
    assert found.config.optimizer.lora_plus_ratio == 16
    found = run(network_args=["loraplus_unet_lr_ratio=8", "loraplus_text_encoder_lr_ratio=4"])
    assert found.config.optimizer.lora_plus_ratio == 8
    assert "one ratio" in reason(found, "network_args.loraplus_text_encoder_lr_ratio")


def test_going_on_from_a_file(run):
    found = run(network_weights="old.safetensors", dim_from_weights=True)
    assert found.config.adapter.start_from == "old.safetensors"
    assert ("dim_from_weights", "adapter.start_from") in found.mapped
    assert "Set adapter.start_from" in reason(run(dim_from_weights=True), "dim_from_weights")


# --- blocks


def block_rules(found: Imported) -> tuple[str, ...]:
    lines = found.config.adapter.rules
    for line in lines:
        rules.parse(line)  # raises for what the adapter cannot read
    return lines


def test_learning_rates_by_block(run):
    found = run(network_args=["down_lr_weight=1,0.2,0.2", "up_lr_weight=0,0,1,0.05", "block_lr_zero_threshold=0.1"])
    assert block_rules(found) == ("IN01-02: lr=0.2", "OUT00-01: off", "OUT03: off")
    assert block_rules(run(network_args=["mid_lr_weight=0.5"])) == ("MID: lr=0.5",)
    assert block_rules(run(network_args=["mid_lr_weight=0.5,0.5,0.5"])) == ("MID: lr=0.5",)
    different = run(network_args=["mid_lr_weight=0.5,1,1"])
    assert block_rules(different) == () and "middle block" in reason(different, "network_args.mid_lr_weight")


def test_shapes_of_learning_rates(run):
    # 12 blocks of SD1: sine is sin(π/2 · i/11); with a base of 0.1 block 0 has 0.1 and block 11 has 1.1.
    lines = block_rules(run(network_args=["down_lr_weight=sine+.1"], sdxl=False))
    assert len(lines) == 12 and lines[0] == "IN00: lr=0.1" and lines[11] == "IN11: lr=1.1"
    assert lines[1] == "IN01: lr=0.242315"  # 0.1 + sin(π / 22)
    lines = block_rules(run(network_args=["up_lr_weight=reverse_linear"], sdxl=True))
    assert lines == (*(f"OUT0{index}: lr={(8 - index) / 8:g}" for index in range(1, 8)), "OUT08: off")
    assert block_rules(run(network_args=["down_lr_weight=zeros"], sdxl=True)) == ("IN00-08: off",)
    unknown = run(network_args=["down_lr_weight=cosine"])
    assert "depends on the model" in reason(unknown, "network_args.down_lr_weight")


def test_ranks_by_block(run):
    dims = [4] * 12 + [8] + [16] * 6 + [0] * 6
    alphas = [2] * 12 + [4] + [1] * 12
    found = run(network_args=[f"block_dims={','.join(map(str, dims))}", f"block_alphas={','.join(map(str, alphas))}"])
    assert block_rules(found) == (
        "IN00-11: rank=4 alpha=2", "MID: rank=8 alpha=4", "OUT00-05: rank=16 alpha=1", "OUT06-11: off",
    )  # fmt: skip
    sdxl = [0] + [4] * 9 + [2] * 3 + [8] * 9 + [0]
    found = run(network_args=[f"conv_block_dims={','.join(map(str, sdxl))}", "down_lr_weight=0.5,0.5"])
    assert block_rules(found) == (
        "IN00-01: conv_rank=4 lr=0.5", "IN02-08: conv_rank=4", "MID: conv_rank=2", "OUT00-08: conv_rank=8",
    )  # fmt: skip
    assert "3 numbers" in reason(run(network_args=["block_dims=1,2,3"]), "network_args.block_dims")


# --- the optimizer


@pytest.mark.parametrize(
    ("written", "name", "path"),
    [
        ("AdamW", "adamw", ""),
        ("PagedAdamW32bit", "adamw", ""),
        ("Lion8bit", "lion8bit", ""),
        ("DAdaptLion", "dadapt-lion", ""),
        ("DAdaptAdaGrad", "custom", "dadaptation.DAdaptAdaGrad"),
        ("AdamWScheduleFree", "schedulefree-adamw", ""),
        ("RAdamScheduleFree", "custom", "schedulefree.RAdamScheduleFree"),
        ("prodigyplus.ProdigyPlusScheduleFree", "schedulefree-prodigy", ""),
        ("came_pytorch.CAME", "custom", "came_pytorch.CAME"),
        ("Rprop", "custom", "torch.optim.Rprop"),
    ],
)
def test_optimizers(run, written, name, path):
    found = run(optimizer_type=written)
    assert (found.config.optimizer.name, found.config.optimizer.custom_class) == (name, path)
    assert reason(found, "optimizer_type") == ""


def test_optimizers_keep_the_defaults_they_had_there(run):
    prodigy = run(optimizer_type="Prodigy").config.optimizer
    assert (prodigy.weight_decay, prodigy.d_coefficient) == (0.0, 1.0)
    assert prodigy.arguments == ("use_bias_correction=False", "safeguard_warmup=False")
    said = run(optimizer_type="Prodigy", optimizer_args=["weight_decay=0.01", "safeguard_warmup=True", "d_coef=2"])
    assert (said.config.optimizer.weight_decay, said.config.optimizer.d_coefficient) == (0.01, 2.0)
    assert said.config.optimizer.arguments == ("safeguard_warmup=True", "use_bias_correction=False")
    assert run(optimizer_type="DAdaptAdam").config.optimizer.arguments == ("decouple=False",)
    factors = run(optimizer_type="AdaFactor", optimizer_args=["relative_step=False", "warmup_init=True"])
    assert factors.config.optimizer.arguments == ("relative_step=True", "warmup_init=True", "scale_parameter=True")
    nesterov = run(optimizer_type="SGDNesterov", optimizer_args=["momentum=0.8"]).config.optimizer
    assert nesterov.arguments == ("momentum=0.8", "nesterov=True") and nesterov.custom_class == "torch.optim.SGD"
    assert run(use_8bit_adam=True).config.optimizer.name == "adamw8bit"
    assert "preprint" in reason(run(optimizer_type="DAdaptation"), "optimizer_type")


@pytest.mark.parametrize("written", ["betas=0.9,0.98", "betas=(0.9,0.98)", 'betas="0.9,0.98"'])
def test_betas(run, written):
    optimizer = run(optimizer_args=[written]).config.optimizer
    assert (optimizer.beta1, optimizer.beta2, optimizer.arguments) == (0.9, 0.98, ())


def test_three_betas_stay_an_argument(run):
    found = run(optimizer_args=["betas=0.9,0.98,0.95"]).config.optimizer
    assert (found.beta1, found.arguments) == (None, ("betas=0.9,0.98,0.95",))


def test_learning_rates(run):
    both = run(unet_lr=2e-4).config
    assert (both.optimizer.unet_learning_rate, both.optimizer.text_learning_rate) == (2e-4, 1e-4)
    none = run(text_encoder_lr=0)
    assert none.config.adapter.text_encoder is False and ("text_encoder_lr", "adapter.text_encoder") in none.mapped
    assert run(unet_lr=0).config.adapter.unet is False
    assert "first is taken" in reason(run(text_encoder_lr=[1e-5, 2e-5]), "text_encoder_lr")


@pytest.mark.parametrize(
    ("keys", "schedule", "more"),
    [
        ({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 50}, "constant", {"warmup": 50.0}),
        ({"lr_scheduler": "cosine", "lr_scheduler_num_cycles": 3}, "cosine", {"cycles": 1}),
        ({"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_min_lr_ratio": 0.1}, "cosine", {"minimum": 0.1}),
        ({"lr_scheduler": "polynomial", "lr_scheduler_power": 2}, "polynomial", {"power": 2.0}),
    ],
)
def test_schedules(run, keys, schedule, more):
    found = run(keys).config.optimizer
    assert found.schedule == schedule and {name: getattr(found, name) for name in more} == more


def test_schedules_that_do_not_exist_here_are_named(run):
    for name in ("inverse_sqrt", "warmup_stable_decay", "piecewise_constant", "adafactor", "unheard_of"):
        found = run(lr_scheduler=name)
        assert found.config.optimizer.schedule == "constant" and reason(found, "lr_scheduler")
    found = run(lr_scheduler="linear", lr_scheduler_type="CosineAnnealingLR", lr_scheduler_args=["T_max=10"])
    assert found.config.optimizer.schedule == "linear"
    assert reason(found, "lr_scheduler_type") and reason(found, "lr_scheduler_args.T_max")


def test_optimizers_without_schedule_have_none(run):
    keys = {"optimizer_type": "AdamWScheduleFree", "lr_scheduler": "cosine", "lr_warmup_steps": 10}
    found = run(keys)
    assert (found.config.optimizer.schedule, found.config.optimizer.warmup) == ("constant", 0.0)
    assert {"lr_scheduler", "lr_warmup_steps"} <= set(found.silent), "they count there as little as here"


def test_rex_of_easy_training(run):
    kind = "LoraEasyCustomOptimizer.RexAnnealingWarmRestarts.RexAnnealingWarmRestarts"
    arguments = ["d=0.5", "min_lr=1e-5", "gamma=0.9"]
    found = run(lr_scheduler_type=kind, lr_scheduler_num_cycles=1, lr_scheduler_args=arguments, warmup_ratio=0.05)
    assert (found.config.optimizer.schedule, found.config.optimizer.minimum) == ("rex", 0.1)
    assert found.config.optimizer.warmup == 0.05 and found.unmapped == ()
    other = run(lr_scheduler_type=kind, lr_scheduler_num_cycles=3)
    assert "no restarts" in reason(other, "lr_scheduler_num_cycles") and "d = 0.9" in reason(other, "lr_scheduler_type")


# --- loss, noise, length


def test_the_factor_of_the_huber_border_counts_only_where_it_counted(run):
    """Here it counts in every schedule, see test_diffusion.py `DIFFERENCES`."""
    assert run(loss_type="huber", huber_schedule="constant", huber_scale=2).config.loss.huber_scale == 2
    found = run(loss_type="huber", huber_scale=2)
    assert found.config.loss.huber_scale == 1 and "no effect there" in reason(found, "huber_scale")


def test_zero_terminal_snr_is_what_the_file_says(run):
    assert run().config.noise.zero_terminal_snr == "off"
    assert run(zero_terminal_snr=True).config.noise.zero_terminal_snr == "on"


def test_lengths(run):
    assert run(max_train_epochs=7, max_train_steps=50).config.training.max_steps == 0
    steps = run(max_train_epochs=None, max_train_steps=50).config.training
    assert (steps.max_steps, steps.epochs) == (50, 50)
    assert run(save_n_epoch_ratio=2, max_train_epochs=9).config.save.every_epochs == 4
    assert "pictures are counted" in reason(
        run(save_n_epoch_ratio=2, max_train_epochs=None, max_train_steps=9), "save_n_epoch_ratio"
    )


def test_values_out_of_range_are_named_and_left_out(run):
    found = run(min_snr_gamma=500, network_dim=100_000, noise_offset="much")
    assert found.config.loss.min_snr_gamma == 0 and "too large" in reason(found, "min_snr_gamma")
    assert "too large" in reason(found, "network_dim") and "not a number" in reason(found, "noise_offset")


# --- the GUI


def test_types_of_the_gui(gui):
    standard = gui(LoRA_type="Standard").config.adapter
    assert (standard.method, standard.layers, standard.weight_decompose, standard.tucker) == (
        "lora",
        "auto",
        False,
        False,
    )
    locon = gui(LoRA_type="Kohya LoCon", down_lr_weight="0,0,1").config.adapter
    assert (locon.method, locon.conv_rank, locon.conv_alpha, locon.rules) == ("locon", 8, 4.0, ("IN00-01: off",))
    oft = gui(LoRA_type="LyCORIS/Diag-OFT", constrain=0.1, rescaled=True).config.adapter
    assert (oft.method, oft.oft_constraint, oft.oft_rescaled) == ("oft", 0.1, True)
    assert gui(LoRA_type="LyCORIS/LoKr", factor=8).config.adapter.lokr_factor == 8
    assert "not offered" in reason(gui(LoRA_type="Flux1", flux1_checkbox=True), "LoRA_type")
    assert "Only SD1, SD2 and SDXL" in reason(gui(flux1_checkbox=True), "flux1_checkbox")


def test_noise_of_the_gui_is_one_of_two_kinds(gui):
    noise = gui(noise_offset_type="Multires").config.noise
    assert (noise.offset, noise.pyramid_iterations, noise.pyramid_discount) == (0.0, 6, 0.3)
    assert gui(noise_offset_type="Original").config.noise.pyramid_iterations == 0


def test_learning_rates_of_the_gui(gui):
    both = gui(unet_lr=0, text_encoder_lr=0, learning_rate=3e-4).config
    assert both.adapter.unet and both.adapter.text_encoder
    assert both.optimizer.unet_learning_rate == both.optimizer.text_learning_rate == 3e-4
    text = gui(unet_lr=0, text_encoder_lr="1e-5").config
    assert (text.adapter.unet, text.adapter.text_encoder, text.optimizer.text_learning_rate) == (False, True, 1e-5)


def test_length_seed_and_warm_up_of_the_gui(gui):
    assert gui(max_train_steps="700").config.training.max_steps == 700
    assert gui(max_train_epochs=3, max_train_steps=700).config.training.epochs == 3
    assert gui(seed="0").config.training.seed == RunConfig().training.seed, "0 draws one there"
    assert gui(seed="99").config.training.seed == 99
    assert gui(lr_warmup_steps=40).config.optimizer.warmup == 40


# --- folders and files


def test_folders_with_repeats(run, tmp_path):
    for name in ("pictures/5_tower keeper", "pictures/2_tower keeper", "other/1_a", "other/3_b", "other/loose"):
        (tmp_path / name).mkdir(parents=True)
    found = run(train_data_dir="pictures", reg_data_dir=str(tmp_path / "other"))
    first, second = found.config.data.sources
    assert (first.path, first.fallback_caption) == (str(tmp_path / "pictures"), "tower keeper")
    assert (second.regularization, second.fallback_caption) == (True, "")
    assert "(a, b)" in reason(found, "reg_data_dir") and "loose" in reason(found, "reg_data_dir")
    assert reason(found, "train_data_dir") == ""


def test_a_dataset_file_that_is_not_there_is_named(run):
    found = run(dataset_config="nowhere.toml")
    assert "nowhere.toml: cannot be read" in reason(found, "dataset_config")


def test_masks_count_only_with_masked_loss(run, tmp_path):
    (tmp_path / "masks").mkdir()
    dataset = {"datasets": [{"resolution": 512, "subsets": [{"image_dir": ".", "conditioning_data_dir": "masks"}]}]}
    (tmp_path / "data.json").write_text(json.dumps(dataset))
    assert "masked_loss" in reason(run(dataset_config="data.json"), "dataset_config:datasets[0].subsets[0]."
                                   "conditioning_data_dir")  # fmt: skip
    found = run(dataset_config="data.json", masked_loss=True).config
    assert found.loss.masked and found.data.sources[0].masks == str(tmp_path / "masks")


def test_shapes_and_extensions(run, tmp_path):
    assert "squares" in reason(run(resolution="512,768"), "resolution")
    assert reason(run(resolution="512,768", enable_bucket=True), "resolution") == ""
    subsets = [{"image_dir": ".", "caption_extension": ".txt"}, {"image_dir": "more", "caption_extension": ".tags"}]
    (tmp_path / "data.json").write_text(json.dumps({"datasets": [{"resolution": 512, "subsets": subsets}]}))
    found = run(dataset_config="data.json")
    assert found.config.data.caption.extensions == (".txt", ".tags")
    assert "in this order" in reason(found, "dataset_config:datasets[0].subsets[1].caption_extension")


@pytest.mark.parametrize("ending", ["toml", "json"])
def test_prompts_in_tables(run, tmp_path, ending):
    prompts = [{"prompt": "a tower", "width": 640, "seed": 4}, {"prompt": "a harbour", "width": 640, "seed": 5}]
    place = tmp_path / f"prompts.{ending}"
    if ending == "json":
        place.write_text(json.dumps(prompts))
    else:
        lines = [f"[[prompt.subset]]\nprompt = {item['prompt']!r}\nseed = {item['seed']}\n" for item in prompts]
        place.write_text("[prompt]\nwidth = 640\n" + "".join(lines))
    samples = run(sample_prompts=place.name, sample_every_n_epochs=2).config.samples
    assert (samples.prompts, samples.width, samples.seed, samples.every_epochs) == (("a tower", "a harbour"), 640, 4, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no settings"),
        ("{", "not valid JSON"),
        ("network_dim = ", "neither JSON nor valid TOML"),
        ("path = 'a'\nother = 3", "of no known trainer"),
        ('{"training_method": "LORA", "model_type": "SDXL", "learning_rate": 1, "resolution": "512"}', "OneTrainer"),
        (codec.to_toml(RunConfig()), "a run of this program"),
        ("[1, 2]", "neither JSON nor valid TOML"),
    ],
)
def test_files_that_cannot_be_imported_say_what_to_do(tmp_path, text, message):
    place = tmp_path / "file.toml"
    place.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read(place)
    assert str(place) in str(error.value) and str(error.value).endswith(".")


def test_missing_and_foreign_encodings(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.toml")
    place = tmp_path / "utf16.toml"
    place.write_text('output_name = "ü"', encoding="utf-16")
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        read(place)
