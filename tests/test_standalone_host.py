"""The standalone host satisfies the contract, leaves nothing behind, and refuses what it cannot train."""

from __future__ import annotations

import copy
import json
import math
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import host_contract
import host_needs
import small_models
from lib_lora_trainer.adapters.targets import choose
from lib_lora_trainer.base.errors import ConfigError, HostRefusal, NumericalError, RunConflict, TrainerError
from lib_lora_trainer.base.files import sha256
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.hosts import compiled, float8
from lib_lora_trainer.hosts.api import Needs, TextRequest
from lib_lora_trainer.hosts.offload import Offload
from lib_lora_trainer.hosts.standalone import StandaloneHost, restore
from lib_lora_trainer.hosts.standalone import lease as lease_module
from lib_lora_trainer.hosts.standalone.checkpoint import CheckpointFile, read_checkpoint
from lib_lora_trainer.hosts.standalone.host import list_targets, probe_prediction
from lib_lora_trainer.hosts.standalone.layout import infer_layout
from lib_lora_trainer.hosts.standalone.weights import build_empty, check_complete

FAMILIES = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints")
    for family in FAMILIES:
        small_models.write_checkpoint(family, path / f"{family}.safetensors")
    return path


@pytest.fixture(scope="module")
def hosts(folder) -> dict[str, StandaloneHost]:
    return {family: StandaloneHost(folder / f"{family}.safetensors", folder / "adapters", "cpu") for family in FAMILIES}


def hash_of(host: StandaloneHost):
    # The lease's own flags and attachments do not matter here: only the tensors are read.
    return lambda: host_contract.hash_tensors(host.load().modules.all())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("check", [*host_contract.CHECKS, *host_needs.CHECKS], ids=lambda check: check.__name__)
def test_contract(hosts, family, check):
    check(hosts[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_come_back(hosts, family):
    host_contract.check_weights_come_back(hosts[family], hash_of(hosts[family]), Needs(text_encoder_gradient=True))


@pytest.mark.parametrize("needs", host_needs.COMPUTED_OTHERWISE.values(), ids=host_needs.COMPUTED_OTHERWISE)
def test_weights_come_back_however_they_were_computed_with(hosts, needs):
    host_contract.check_weights_come_back(hosts["sd1"], hash_of(hosts["sd1"]), needs)


@pytest.mark.parametrize(
    "needs",
    [
        Needs(torch.float32, text_encoder_gradient=True, gradient_checkpointing=True),
        Needs(torch.bfloat16, fp8_base=True, channels_last=True),
        Needs(torch.bfloat16, text_encoder_gradient=True),
    ],
)
def test_half_precision_weights_come_back(folder, needs):
    host = StandaloneHost(folder / "sd1.safetensors", folder, "cpu", torch.float16)
    assert host.info().dtype == "float16"
    host_contract.check_weights_come_back(host, hash_of(host), needs)
    assert {value.dtype for value in host.load().modules.unet.state_dict().values()} == {torch.float16}


def test_reduced_precision_agrees_with_float32(hosts, folder):
    latents, timesteps = host_contract.noisy()
    results = []
    narrow = StandaloneHost(folder / "sd1.safetensors", folder, "cpu", torch.float16)
    for host, dtype in ((hosts["sd1"], torch.float32), (hosts["sd1"], torch.bfloat16), (narrow, torch.float32)):
        with host.lease(Needs(dtype)) as lease, torch.no_grad():
            text = lease.encode_text(host_contract.text_request("a", "b"))
            results.append(lease.predict(latents, timesteps, text))
    spread = results[0].std()
    assert 0 < (results[1] - results[0]).abs().mean() < 0.1 * spread
    assert 0 < (results[2] - results[0]).abs().mean() < 0.01 * spread


def test_info(hosts, folder):
    info = hosts["sdxl"].info()
    assert (info.family, info.prediction, info.text_encoders) == ("sdxl", "epsilon", ("te1", "te2"))
    assert info.sha256 == sha256(folder / "sdxl.safetensors")
    assert (info.name, info.latent_scale, info.dtype, info.device) == ("sdxl", 0.13025, "float32", "cpu")
    assert info.sha256[:10] in info.title
    sd1, sd2 = hosts["sd1"].info(), hosts["sd2"].info()
    assert (sd1.family, sd1.prediction, sd1.text_encoders, sd1.latent_scale) == ("sd1", "epsilon", ("te",), 0.2)
    assert (sd2.family, sd2.prediction) == ("sd2", "v")
    assert hosts["sd1"].adapter_folder() == str(folder / "adapters")


def test_header_suffices_for_the_layers(folder, monkeypatch):
    host = StandaloneHost(folder / "sd1.safetensors", folder, "cpu")
    monkeypatch.setattr("safetensors.safe_open", None)
    layers = host.layers()
    assert sum(not layer.norm for layer in layers) == 299
    assert sum(layer.norm and layer.part == "unet" for layer in layers) == 44 + 16 + 3 * 16 + 1
    assert sum(layer.norm and layer.part == "te" for layer in layers) == 2 * 3 + 1


PUBLISHED = {
    "sd1": (859_520_964, 192, 278, 72),
    "sd2": (865_910_724, 192, 278, 138),
    "sdxl": (
        2_567_463_684,
        722,
        788,
        258,
    ),  # 264 in sd-scripts, with the last layer of the first encoder, which learns nothing
}


@pytest.mark.parametrize("family", FAMILIES)
def test_published_models_have_their_known_sizes(family):
    """UNet parameters as published; adapter layers as sd-scripts and LyCORIS count them."""
    shapes = small_models.all_shapes(family, small_models.PUBLISHED[family])
    file = CheckpointFile(Path("model.safetensors"), family, shapes, {}, {})
    layout = infer_layout(file)
    empty = build_empty(layout)
    check_complete(file, layout, empty)
    layers = [target.layer for target in list_targets(empty, family)]
    lora = choose(layers, AdapterConfig("lora", text_encoder=False), family)
    locon = choose(layers, AdapterConfig("locon", text_encoder=False), family)
    text = choose(layers, AdapterConfig("lora", unet=False), family)
    parameters = sum(value.numel() for value in empty.unet.parameters())
    assert (parameters, len(lora), len(locon), len(text)) == PUBLISHED[family]
    heads = (8,) * 4 if family == "sd1" else (5, 10, 20, 20)[: len(layout.unet["block_out_channels"])]
    assert layout.unet["attention_head_dim"] == heads
    assert layout.text[-1].configuration["num_attention_heads"] == {"sd1": 12, "sd2": 16, "sdxl": 20}[family]


def test_layers_are_in_the_models_order(hosts):
    paths = [layer.path for layer in hosts["sdxl"].layers() if layer.part == "unet"]
    sections = [path.split(".")[0] for path in paths]
    order = ["time_embed", "label_emb", "input_blocks", "middle_block", "output_blocks", "out"]
    assert sections == sorted(sections, key=order.index)
    numbers = [int(path.split(".")[1]) for path in paths if path.startswith("output_blocks")]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 8


def test_adapter_left_attached_is_reported(hosts):
    with pytest.raises(TrainerError, match="attached"), hosts["sd1"].lease(Needs()) as lease:
        module = lease.targets()[0].module
        vars(module)["forward"] = lambda inputs: inputs
        module.register_forward_hook(lambda *arguments: None)
    assert "forward" not in vars(module)
    assert not module._forward_hooks


def test_checkpointing_stores_less_and_leaves_no_wrapper(hosts):
    host = hosts["sd1"]
    latents, timesteps = host_contract.noisy()

    def stored(needs: Needs) -> int:
        """Return how many values the graph holds between the forward and the backward pass."""
        sizes = []

        def note(value: torch.Tensor) -> torch.Tensor:
            sizes.append(value.numel())
            return value

        with host.lease(needs) as lease, host_contract.scaled(host_contract.chosen(lease)):
            text = lease.encode_text(host_contract.text_request("a", "b"))
            with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
                loss = lease.predict(latents, timesteps, text).square().mean()
            loss.backward()
        return sum(sizes)

    assert stored(Needs(gradient_checkpointing=True)) < 0.6 * stored(Needs())
    assert not any("forward" in vars(module) for module in host.load().modules.unet.modules())


def test_lease_is_of_no_use_outside_its_block(hosts):
    lease = hosts["sd1"].lease(Needs())
    with pytest.raises(RunConflict, match="lease"):
        lease.targets()
    with lease:
        lease.targets()
    with pytest.raises(RunConflict, match="lease"):
        lease.encode_text(TextRequest(("a",), 1, 1, ()))


def test_what_torch_cannot_do_is_refused(hosts, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(float8, "reason_against", lambda: "torch 2.0 has no 8-bit numbers")
        with pytest.raises(HostRefusal, match="no 8-bit numbers.*update torch"):
            hosts["sd1"].lease(Needs(fp8_base=True))
    monkeypatch.setattr(compiled, "reason_against", lambda kind, float8: f"no compiler on {kind}")
    with pytest.raises(HostRefusal, match='no compiler on cpu.*Switch "Compile" off'):
        hosts["sd1"].lease(Needs(compile=True))


def test_idle_parts_leave_and_images_bring_them_back(hosts, monkeypatch):
    """The moves to another device, recorded: this machine has only one."""
    modules = hosts["sd1"].load().modules
    owners = {id(value): "vae" for value in modules.vae.parameters()}
    owners |= {id(value): "text" for value in modules.text["te"].parameters()}
    moves: list[tuple[str, str]] = []

    def move(tensor, device):
        entry = (owners.get(id(tensor), "buffer"), device.type)
        if entry[0] != "buffer" and entry not in moves[-2:]:
            moves.append(entry)

    class Recording(Offload):
        def __init__(self, parts, active):
            assert not active, "on the CPU nothing moves"
            super().__init__(parts, True, move=move)

        def __enter__(self):
            super().__enter__()
            for part, homes in self._homes.items():
                self._homes[part] = [(module, name, torch.device("cuda")) for module, name, _ in homes]
            return self

    monkeypatch.setattr(lease_module, "Offload", Recording)
    with hosts["sd1"].lease(Needs(offload=True)) as lease:
        lease.idle("vae", "text")
        assert sorted(moves) == [("text", "cpu"), ("vae", "cpu")]
        moves.clear()
        lease.encode_text(TextRequest(("a",), 1, 1, ()))
        lease.idle("vae", "text")
        assert moves == [("text", "cuda"), ("text", "cpu")]
        moves.clear()
        list(lease.generate([host_contract.REQUEST]))
        assert sorted(moves[:2]) == [("text", "cuda"), ("vae", "cuda")]
        assert sorted(moves[2:]) == [("text", "cpu"), ("vae", "cpu")]
        moves.clear()
        lease.encode_images(torch.zeros(1, 3, 64, 64))
        assert moves == [("vae", "cuda")]
    assert moves == [("vae", "cuda"), ("text", "cuda")]
    with pytest.raises(RunConflict, match="ended"):
        lease.idle("vae")


@pytest.mark.slow
def test_compiled(hosts, monkeypatch):
    """A residual and a transformer block: a whole UNet takes the C++ compiler many minutes on one core."""
    every = restore.unet_blocks
    monkeypatch.setattr(restore, "unet_blocks", lambda unet: every(unet)[:2])
    needs = Needs(
        text_encoder_gradient=True, gradient_checkpointing=True, fp8_base=True, channels_last=True, compile=True
    )
    host_needs.check_compiled(hosts["sd1"], needs)
    host_contract.check_weights_come_back(hosts["sd1"], hash_of(hosts["sd1"]), needs)


def test_bad_requests_are_refused(hosts):
    request = host_contract.REQUEST
    with hosts["sd1"].lease(Needs()) as lease:
        for bad, word in (({"sampler": "Heun"}, "Euler a"), ({"width": 60}, "60"), ({"steps": 0}, "steps")):
            with pytest.raises(ConfigError, match=word):
                lease.generate([replace(request, **bad)])
        with pytest.raises(ConfigError, match="clip_skip = 4"):
            lease.encode_text(TextRequest(("a",), 4, 1, ()))
        with pytest.raises(ConfigError, match="multiples of 8"):
            lease.encode_images(torch.zeros(1, 3, 60, 64))
        with pytest.raises(NumericalError):
            lease.encode_images(torch.full((1, 3, 64, 64), math.nan))
    with hosts["sdxl"].lease(Needs()) as lease, pytest.raises(ConfigError, match="one per caption"):
        lease.encode_text(TextRequest(("a", "b"), 1, 1, (host_contract.SIZE,)))
    with pytest.raises(HostRefusal, match="float16"):
        hosts["sd1"].lease(Needs(torch.float16))
    with pytest.raises(HostRefusal, match="cuda:9x"):
        StandaloneHost(Path("a"), Path("b"), "xpu:cuda:9x")


def altered(folder: Path, tmp_path: Path, family: str = "sd1") -> tuple[dict, Path]:
    """Return the tensors of a checkpoint to change, and where to save them, with the yaml beside it."""
    path = tmp_path / "altered.safetensors"
    path.with_suffix(".yaml").write_text((folder / f"{family}.yaml").read_text())
    return load_file(folder / f"{family}.safetensors"), path


def drop(tensors: dict, prefix: str) -> dict:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}


UNET = "model.diffusion_model."
CHANGES = {
    "inpainting": (lambda t: t | {f"{UNET}input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, "inpainting"),
    "no VAE": (lambda t: drop(t, "first_stage_model."), "VAE"),
    "no decoder": (lambda t: drop(t, "first_stage_model.decoder."), "VAE"),
    "no text encoder": (lambda t: drop(t, "cond_stage_model."), "text encoder"),
    "no UNet": (lambda t: drop(t, UNET), "no UNet"),
    "a missing tensor": (lambda t: drop(t, f"{UNET}middle_block.1.norm.bias"), "middle_block.1.norm.bias is missing"),
    "missing first tensors": (lambda t: drop(t, f"{UNET}input_blocks.10."), "missing"),
    "another tensor": (lambda t: t | {f"{UNET}middle_block.3.weight": torch.zeros(1)}, "middle_block.3.weight"),
    "another shape": (lambda t: t | {f"{UNET}out.2.weight": torch.zeros(4, 32, 1, 1)}, "out.2.weight"),
    "SD3": (lambda t: {f"{UNET}joint_blocks.0.weight": torch.zeros(1)}, "SD3"),
    "Flux": (lambda t: {"double_blocks.0.weight": torch.zeros(1)}, "Flux"),
    "a LoRA": (lambda t: {"lora_unet_x.alpha": torch.zeros(1)}, "adapter"),
    "the refiner": (lambda t: t | {"conditioner.embedders.0.model.x": torch.zeros(1)}, "refiner"),
    "float8": (lambda t: t | {"betas": torch.zeros(1, dtype=torch.float8_e4m3fn)}, "F8_E4M3"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_unfit_checkpoints_are_refused(folder, tmp_path, name):
    change, words = CHANGES[name]
    tensors, path = altered(folder, tmp_path)
    save_file(change(tensors), path)
    for ask in ("info", "layers"):
        with pytest.raises(HostRefusal, match=words):
            getattr(StandaloneHost(path, tmp_path, "cpu"), ask)()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a safetensors"),
        (b"PK\x03\x04 a zip archive of pickles", "not a safetensors"),
        (struct.pack("<Q", 2) + b"[]", "not a safetensors"),
        (
            struct.pack("<Q", 80)
            + json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).ljust(80).encode(),
            "cut off",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, words):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(HostRefusal, match=words):
        read_checkpoint(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(HostRefusal, match="no such file"):
        read_checkpoint(tmp_path / "none.safetensors")
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"x")
    with pytest.raises(HostRefusal, match="run code"):
        read_checkpoint(pickle)


def test_unknown_heads_are_refused_rather_than_guessed(folder, tmp_path):
    tensors, path = altered(folder, tmp_path)
    save_file(tensors, path)
    path.with_suffix(".yaml").unlink()
    with pytest.raises(HostRefusal, match=r"heads.*altered\.yaml"):
        StandaloneHost(path, tmp_path, "cpu").layers()
    path.with_suffix(".yaml").write_text("model: [")
    with pytest.raises(HostRefusal, match="YAML"):
        StandaloneHost(path, tmp_path, "cpu").layers()


def test_heads_of_the_text_encoder_come_from_its_configuration(folder, tmp_path):
    tensors, path = altered(folder, tmp_path)
    save_file(tensors, path)
    content = yaml.safe_load(path.with_suffix(".yaml").read_text())
    content["model"]["params"]["cond_stage_config"] = {"params": {"version": "clip"}}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text('{"num_attention_heads": 2}')
    file = read_checkpoint(path)
    assert infer_layout(file).text[0].configuration["num_attention_heads"] == 2


def test_prediction_type(folder, tmp_path):
    file = read_checkpoint(folder / "sdxl.safetensors")
    model = {"params": {"network_config": {"params": small_models.unet_parameters("sdxl")}}}
    plain = replace(file, description={"model": model})
    assert infer_layout(plain).prediction == "epsilon"
    marked = replace(plain, shapes={**file.shapes, "v_pred": (0,)})
    assert infer_layout(marked).prediction == "v"
    assert infer_layout(replace(plain, metadata={"modelspec.prediction_type": "v"})).prediction == "v"
    assert infer_layout(replace(marked, metadata={"modelspec.prediction_type": "epsilon"})).prediction == "epsilon"
    scaling = {"scaling_config": {"target": "sgm.modules.diffusionmodules.denoiser_scaling.VScaling"}}
    model["params"]["denoiser_config"] = {"params": scaling}
    assert infer_layout(replace(file, description={"model": model})).prediction == "v"


def test_the_files_own_schedule_is_used(folder, tmp_path):
    tensors, path = altered(folder, tmp_path)
    own = torch.linspace(0.999, 0.02, 1000)
    save_file(tensors | {"alphas_cumprod": own}, path)
    host = StandaloneHost(path, tmp_path, "cpu")
    with host.lease(Needs()) as lease:
        assert torch.equal(lease.alphas_cumprod, own)
    assert not host.info().zero_terminal_snr
    for broken in (own.flip(0), torch.zeros(1000) + torch.nan, own - 0.5):
        save_file(tensors | {"alphas_cumprod": broken}, path)
        with pytest.raises(HostRefusal, match="noise schedule"):
            StandaloneHost(path, tmp_path, "cpu").info()
    # SDXL has Stable Diffusion's schedule whatever the file says, as in the WebUI.
    tensors, path = altered(folder, tmp_path, "sdxl")
    save_file(tensors | {"alphas_cumprod": own}, path)
    with StandaloneHost(path, tmp_path, "cpu").lease(Needs()) as lease:
        assert lease.alphas_cumprod[-1] == pytest.approx(0.00466, abs=1e-5)


@pytest.mark.parametrize("mark", ["ztsnr", "own schedule"])
def test_zero_terminal_snr(folder, tmp_path, hosts, mark):
    tensors, path = altered(folder, tmp_path, "sd2")
    own = torch.linspace(0.999, 0.0, 1000)
    save_file(tensors | ({"ztsnr": torch.zeros(0)} if mark == "ztsnr" else {"alphas_cumprod": own}), path)
    host = StandaloneHost(path, tmp_path, "cpu")
    assert host.info().zero_terminal_snr
    assert not hosts["sd2"].info().zero_terminal_snr
    images = []
    for one in (host, hosts["sd2"]):
        with one.lease(Needs()) as lease:
            images += host_contract.images(lease, host_contract.REQUEST)
            last = lease.alphas_cumprod[-1]
    assert last > 0.004, "training stretches the schedule, not the host"
    assert abs(images[0] - images[1]).mean() > 1


@pytest.mark.parametrize(("offset", "expected"), [(0.5, "epsilon"), (-2.0, "v")])
def test_prediction_type_of_a_silent_sd2_file_is_found_by_running_it(hosts, offset, expected):
    """With the last convolution zero the UNet returns its bias: about the input for noise, far below it for v."""
    shapes = small_models.all_shapes("sd2", small_models.PUBLISHED["sd2"])
    assert infer_layout(CheckpointFile(Path("model.safetensors"), "sd2", shapes, {}, {})).prediction is None
    unet = copy.deepcopy(hosts["sd2"].load().modules.unet)
    with torch.no_grad():
        unet.conv_out.weight.zero_()
        unet.conv_out.bias.fill_(offset)
    assert probe_prediction(unet, 64) == expected


def test_early_sd1_names_are_read(folder, tmp_path, hosts):
    tensors, path = altered(folder, tmp_path)
    save_file({name.replace("text_model.", ""): tensor for name, tensor in tensors.items()}, path)
    request = host_contract.text_request("a red cat")
    found = []
    for host in (StandaloneHost(path, tmp_path, "cpu"), hosts["sd1"]):
        with host.lease(Needs()) as lease, torch.no_grad():
            found.append(lease.encode_text(request).context)
    assert torch.equal(*found)
