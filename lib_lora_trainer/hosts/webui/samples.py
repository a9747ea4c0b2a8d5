"""Images by the WebUI's own txt2img, made in the middle of training with the model as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from modules import devices, processing, sd_models, sd_samplers, shared

from lib_lora_trainer.base.errors import ConfigError, RunConflict
from lib_lora_trainer.hosts.api import ImageRequest, MadeImage
from lib_lora_trainer.hosts.webui.loaded import Loaded
from lib_lora_trainer.hosts.webui.restoring import (
    attributes_kept,
    clear_interruption,
    options_set,
    random_state_kept,
    switch_off_tricks,
)

_LOOK = 0.1  # seconds between two looks at whether an image is still wanted
_STATE = (
    "job",
    "job_no",
    "job_count",
    "job_timestamp",
    "processing_has_refined_job_count",
    "sampling_step",
    "sampling_steps",
    "textinfo",
    "time_start",
    "current_latent",
    "current_image",
    "current_image_sampling_step",
    "id_live_preview",
)


def check_sampler(name: str) -> None:
    """Raise ConfigError when the WebUI knows no such sampler; it would put its first one in place silently."""
    # Old names carry the schedule: "DPM++ 2M Karras".
    sampler, schedule = sd_samplers.get_sampler_and_scheduler(name, "Automatic", convert_automatic=False)
    if name != sampler and not (name.startswith(f"{sampler} ") and schedule != "Automatic"):
        known = ", ".join(sd_samplers.visible_sampler_names())
        raise ConfigError(f"sampler: {name!r} is unknown to the WebUI. Choose one of: {known}.")


def generate(loaded: Loaded, request: ImageRequest, go_on: Callable[[], bool]) -> MadeImage | None:
    """Return one image, or None when the user pressed Interrupt or Skip, or `go_on` said no, while it was made.

    The queue's lock is held already, and `process_images` does not take it. `<lora:…>` tags in the prompt have no
    effect: the adapter in training is attached to the model itself.
    """
    # Split here, or else the WebUI does it and logs a warning for every image.
    sampler, schedule = sd_samplers.get_sampler_and_scheduler(request.sampler, "Automatic", convert_automatic=False)
    with as_it_was(loaded, request):
        clear_interruption()
        work = processing.StableDiffusionProcessingTxt2Img(
            sd_model=loaded.model,
            prompt=request.prompt,
            negative_prompt=request.negative,
            seed=request.seed,
            steps=request.steps,
            cfg_scale=request.guidance,
            width=request.width,
            height=request.height,
            sampler_name=sampler,
            scheduler=schedule,
            batch_size=1,
            n_iter=1,
            restore_faces=False,
            do_not_save_samples=True,
            do_not_save_grid=True,
            do_not_reload_embeddings=True,
            disable_extra_networks=True,
        )
        with closing(work), interrupted_unless(go_on):
            made = processing.process_images(work)
        state = shared.state
        if state.interrupted or state.skipped or state.stopping_generation or not made.images:
            return None
        return MadeImage(made.images[0], made.infotexts[0], request)


@contextmanager
def interrupted_unless(go_on: Callable[[], bool]) -> Iterator[None]:
    """Press Interrupt once `go_on` says no: the WebUI's samplers look at it in every step, and at nothing of ours."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK):
            if not go_on():
                shared.state.interrupted = True
                return

    watcher = threading.Thread(target=watch, name="lora-trainer-interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def as_it_was(loaded: Loaded, request: ImageRequest) -> Iterator[None]:
    """Keep everything that a generation changes in the WebUI, and keep its options from changing the model."""
    checkpoint = loaded.model.sd_checkpoint_info
    known: Any = sd_models.checkpoint_aliases.get(checkpoint.title)
    if known is None or known.filename != checkpoint.filename:
        raise RunConflict(
            f"{checkpoint.title} is no longer in the WebUI's list of checkpoints, so that no image can be made with "
            "it. Put its file back and press the refresh button beside the list."
        )
    with ExitStack() as stack:
        stack.callback(clear_interruption)
        stack.enter_context(random_state_kept())
        stack.enter_context(attributes_kept(shared.state, *_STATE))
        stack.callback(switch_off_tricks, loaded.model)
        # params.txt holds the prompt that the user's "read last prompt" button brings back.
        stack.enter_context(attributes_kept(shared.cmd_opts, no_prompt_history=True))
        # Cached conditioning is keyed by the prompt, not by the weights that made it.
        first, later = processing.StableDiffusionProcessing, processing.StableDiffusionProcessingTxt2Img
        stack.enter_context(attributes_kept(first, cached_c=[None, None], cached_uc=[None, None]))
        stack.enter_context(attributes_kept(later, cached_hr_c=[None, None], cached_hr_uc=[None, None]))
        if loaded.info.prediction == "v" != loaded.model.parameterization:
            # The file says so where the WebUI 1.10, which takes every SDXL to predict noise, does not look.
            stack.enter_context(attributes_kept(loaded.model, parameterization="v"))
        # `process_images` loads whatever checkpoint the options name, and loads it again when its kind of weights
        # changes; the user may have chosen something else meanwhile, which happens when the lease ends.
        stack.enter_context(
            options_set(
                sd_model_checkpoint=checkpoint.title,
                sd_unet="None",
                fp8_storage="Enable" if devices.fp8 else "Disable",
                live_previews_enable=False,
                CLIP_stop_at_last_layers=request.clip_skip,
                **({"sd_noise_schedule": "Zero Terminal SNR"} if loaded.info.zero_terminal_snr else {}),
            )
        )
        yield
