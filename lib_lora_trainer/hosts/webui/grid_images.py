"""A grid's images by the WebUI's own txt2img, adapters as `<lora:…>` in the prompt: pixel for pixel what users get.

An adapter that is attached to the model computes W·x + Δ·x, the built-in loader (W + Δ)·x with the sum rounded to the
weights' type. These differ in the last bits, so that a grid in the WebUI does not take the lease that training takes
(test_a_cell_is_txt2img_to_the_pixel).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from modules import call_queue, devices, processing, sd_models, sd_schedulers, sd_vae, shared

from lib_lora_trainer.app.grid_attached import request_of
from lib_lora_trainer.base.errors import ConfigError, DataError, HostRefusal, Problem
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.evaluate.grid_axes import Scene, Worn
from lib_lora_trainer.evaluate.grid_cells import prompt_of
from lib_lora_trainer.evaluate.grid_studio import Paint
from lib_lora_trainer.hosts.api import MadeImage
from lib_lora_trainer.hosts.webui import restoring, samples
from lib_lora_trainer.hosts.webui.blockweights import block_weights
from lib_lora_trainer.hosts.webui.lease import only_lease
from lib_lora_trainer.hosts.webui.loaded import examine

JOB = "lora-trainer grid"
_NO_VAE = "None"
_FORBIDDEN = set(":<>,")  # in the name of an adapter: they end it in a prompt
# The user's settings that change pixels and are in no scene.
_OPTIONS = (
    "randn_source", "eta_noise_seed_delta", "eta_ancestral", "eta_ddim", "s_churn", "s_noise", "sgm_noise_multiplier",
    "emphasis", "comma_padding_backtrack", "upcast_attn", "token_merging_ratio", "sd_noise_schedule", "sd_lora",
    "sd_hypernetwork", "tiling", "use_old_scheduling", "use_old_hires_fix_width_height", "lora_functional", "fp8_storage",
)  # fmt: skip
# What the loader and we say under an image in which an adapter is not what the prompt says.
_FAILURES = ("Lora not found", "Networks with errors", "was left out of this image", "has no block weights")


class WebuiStudio:
    """Makes images with the checkpoint that the WebUI has loaded, and with others that it lists."""

    def family(self) -> Family:
        """Return the family of the loaded model. Raises HostRefusal when none is loaded."""
        return examine().info.family

    def made_by(self, scene: Scene) -> Mapping[str, str]:
        """Return what besides the scene decides about its pixels: model, VAE, arithmetic, the user's settings."""
        checkpoint = _checkpoint(scene.checkpoint)
        checkpoint.calculate_shorthash()  # from the WebUI's cache, but for the first time
        settings = repr([(name, getattr(shared.opts, name, None)) for name in _OPTIONS])
        return {
            "host": "webui",
            "model": checkpoint.sha256 or _stamp(checkpoint.filename),
            "vae": _stamp(_vae_file(scene.vae, checkpoint)),
            "arithmetic": f"{devices.dtype_unet} {devices.device.type}",
            "settings": hashlib.sha256(settings.encode()).hexdigest()[:16],
        }

    def problems(self, scenes: Sequence[Scene]) -> tuple[Problem, ...]:
        """Return everything of these scenes that cannot be had here, each thing once."""
        networks = restoring.lora_extension()
        if networks is not None:
            networks.list_available_networks()
        sd_vae.refresh_vae_list()
        return tuple(dict.fromkeys(problem for scene in scenes for problem in _problems(scene, networks)))

    @contextmanager
    def opened(self) -> Iterator[Paint]:
        """Yield what makes images, while nobody else generates; enter it in a thread without the WebUI's queue.

        Afterwards the checkpoint and the VAE are those of the user's settings.
        """
        with ExitStack() as stack:
            stack.enter_context(only_lease())
            stack.enter_context(call_queue.queue_lock)
            stack.enter_context(restoring.job_shown(JOB))
            stack.enter_context(restoring.random_state_kept())
            if not block_weights().install():
                raise HostRefusal("The built-in Lora extension is off. Switch it on under Extensions, and restart.")
            # An adapter that was written anew under its name would not be merged anew.
            restoring.take_out_networks(examine().model)
            stack.callback(_taken_out)
            yield stack.enter_context(_Switched()).paint


def _taken_out() -> None:
    """Leave no adapter of ours in the weights, where the built-in extension would until the next generation."""
    if sd_models.model_data.sd_model is not None:
        restoring.take_out_networks(sd_models.model_data.sd_model)


class _Switched:
    """What a grid changes in the WebUI: checkpoint and VAE."""

    def __init__(self) -> None:
        loaded = examine()
        self._family = loaded.info.family
        self._home = loaded.model.sd_checkpoint_info
        self._option = shared.opts.data.get("sd_model_checkpoint")
        self._titles: set[str] = set()

    def __enter__(self) -> _Switched:
        return self

    def __exit__(self, *_: object) -> None:
        if self._titles:
            if shared.opts.data.get("sd_model_checkpoint") in self._titles:  # else the user chose another meanwhile
                shared.opts.data["sd_model_checkpoint"] = self._option
            sd_models.reload_model_weights()
        if sd_models.model_data.sd_model is not None:
            sd_vae.reload_vae_weights()

    def paint(self, scene: Scene, go_on: Callable[[], bool]) -> MadeImage | None:
        """Return one image; None when it was interrupted."""
        checkpoint = _checkpoint(scene.checkpoint) if scene.checkpoint else self._home
        model = sd_models.model_data.sd_model
        if model is None or model.sd_model_checkpoint != checkpoint.filename:
            self._titles.add(checkpoint.title)
            model = sd_models.reload_model_weights(info=checkpoint)
        if scene.vae:
            sd_vae.reload_vae_weights(model, _vae_file(scene.vae, checkpoint))
        else:
            sd_vae.reload_vae_weights(model)
        loaded = examine()
        if loaded.info.family != self._family:
            raise ConfigError(
                f"checkpoint: {checkpoint.title} is {loaded.info.family}, the others are {self._family}. Compare "
                "checkpoints of one family."
            )
        request = request_of(scene)
        with samples.as_it_was(loaded, request):
            restoring.clear_interruption()
            work = processing.StableDiffusionProcessingTxt2Img(
                sd_model=loaded.model,
                prompt=prompt_of(scene),
                negative_prompt=scene.negative,
                seed=scene.seed,
                steps=scene.steps,
                cfg_scale=scene.guidance,
                width=scene.width,
                height=scene.height,
                sampler_name=scene.sampler,
                scheduler=scene.scheduler,
                batch_size=1,
                n_iter=1,
                restore_faces=False,
                do_not_save_samples=True,
                do_not_save_grid=True,
                do_not_reload_embeddings=True,
                **_second_pass(scene),
            )
            with closing(work), samples.interrupted_unless(go_on):
                made = processing.process_images(work)
            state = shared.state
            if state.interrupted or state.skipped or state.stopping_generation or not made.images:
                return None
            _check(made.comments, scene)
            return MadeImage(made.images[0], made.infotexts[0], request)


def _second_pass(scene: Scene) -> dict[str, Any]:
    if scene.hires == 1:
        return {}
    return {
        "enable_hr": True,
        "hr_scale": scene.hires,
        "hr_upscaler": scene.hires_upscaler,
        "hr_second_pass_steps": scene.hires_steps,
        "denoising_strength": scene.hires_denoising,
    }


def _check(comments: str, scene: Scene) -> None:
    if scene.worn and any(failure in comments for failure in _FAILURES):
        names = ", ".join(worn.file for worn in scene.worn)
        raise DataError(f"{names}: the WebUI did not use it as it is asked for: {comments.strip()} Check the file.")


def _problems(scene: Scene, networks: Any) -> Iterator[Problem]:
    try:
        samples.check_sampler(scene.sampler)
    except ConfigError as error:
        yield Problem("error", "sampler", str(error))
    if scene.scheduler not in sd_schedulers.schedulers_map:
        known = ", ".join(scheduler.label for scheduler in sd_schedulers.schedulers)
        yield Problem("error", "scheduler", f"{scene.scheduler!r} is unknown to the WebUI.", f"Choose one of: {known}.")
    if scene.width % 8 or scene.height % 8 or min(scene.width, scene.height) < 64:
        text = f"{scene.width}x{scene.height} cannot be made."
        yield Problem("error", "size", text, "Use multiples of 8, 64 or more.")
    try:
        _checkpoint(scene.checkpoint)
    except ConfigError as error:
        yield Problem("error", "checkpoint", str(error))
    if scene.vae and scene.vae != _NO_VAE and scene.vae not in sd_vae.vae_dict:
        known = ", ".join((_NO_VAE, *sd_vae.vae_dict))
        yield Problem("error", "vae", f"{scene.vae!r} is unknown to the WebUI.", f"Choose one of: {known}.")
    upscalers = (*shared.latent_upscale_modes, *(upscaler.name for upscaler in shared.sd_upscalers))
    if scene.hires != 1 and scene.hires_upscaler not in upscalers:
        text = f"{scene.hires_upscaler!r} is unknown to the WebUI."
        yield Problem("error", "hires_upscaler", text, f"Choose one of: {', '.join(upscalers)}.")
    for worn in scene.worn:
        yield from _about(worn, networks)


def _about(worn: Worn, networks: Any) -> Iterator[Problem]:
    """Yield what stands against an adapter: `<lora:stem>` has to be this very file."""
    path = Path(worn.file)
    if networks is None:
        yield Problem("error", "adapter", "the built-in Lora extension is off.", "Switch it on, and restart the WebUI.")
        return
    if _FORBIDDEN & set(path.stem):
        yield Problem("error", "adapter", f"{path.name} cannot be named in a prompt.", "Rename it without : , < or >.")
        return
    name = path.stem
    known = (
        networks.available_networks
        if name.lower() in networks.forbidden_network_aliases
        else (networks.available_network_aliases)
    )  # as the loader looks for it
    found = known.get(name)
    folder = str(shared.cmd_opts.lora_dir)
    if found is None:
        yield Problem("error", "adapter", f"{path} is not in the WebUI's folder.", f"Move it to {folder}.")
    elif not Path(found.filename).samefile(path):
        text = f"<lora:{name}> is {found.filename} in the WebUI, not {path}."
        yield Problem("error", "adapter", text, "Rename one of them.")


def _checkpoint(name: str) -> Any:
    """Return the WebUI's record of a checkpoint, by its title, name, hash or path; of the loaded one for ""."""
    if not name:
        return examine().model.sd_checkpoint_info
    found = sd_models.checkpoint_aliases.get(name)
    if found is None:
        same = [info for info in sd_models.checkpoints_list.values() if Path(info.filename) == Path(name)]
        found = same[0] if same else None
    if found is None:
        known = ", ".join(sorted(sd_models.checkpoints_list))
        raise ConfigError(f"{name!r} is not in the WebUI's list of checkpoints. Choose one of: {known}.")
    return found


def _vae_file(name: str, checkpoint: Any) -> str | None:
    if not name:
        return sd_vae.resolve_vae(checkpoint.filename).vae
    return None if name == _NO_VAE else sd_vae.vae_dict[name]


def _stamp(file: str | None) -> str:
    """Return what tells a large file apart without reading it: name, length, time; "" for no file."""
    if not file:
        return ""
    path = Path(file)
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"
