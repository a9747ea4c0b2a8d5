"""The plan in words."""

from __future__ import annotations

from collections import Counter

from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.items import Concept
from lib_lora_trainer.plan.case import named, times_seen
from lib_lora_trainer.plan.plan import Plan

_RANKED = ("lora", "locon", "loha", "lokr", "dylora", "glora")


def duration(seconds: float) -> str:
    """Return a time span as `2 h 05 min`, `3 min 20 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def size(count: float) -> str:
    """Return a number of bytes as `1.2 GB` or `9.4 MB` (powers of ten)."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def lines(plan: Plan) -> tuple[str, ...]:
    """Return what the run will do, one fact a line; options that are off are not mentioned."""
    config, figures, data = plan.config, plan.estimate, plan.config.data
    prediction = {"epsilon": "noise", "v": "velocity"}[plan.info.prediction]
    text = [
        f"Model: {plan.info.title} ({plan.info.family}, predicts {prediction}) in {plan.info.host}",
        f"Adapter: {_method(config)} on {_where(plan)}: {figures.parameters / 1e6:.2f} M values, "
        f"{size(figures.file_bytes)} per file",
        *_named("Layers", _layers(config)),
        *_named("While training", _regularizers(config)),
        *(_concept(concept, plan) for concept in plan.concepts),
    ]
    sizes = ", ".join(f"{width}×{height}: {count}" for (width, height), count in plan.buckets.items())
    more = ", ".join(str(each) for each in dict.fromkeys((data.resolution, *data.more_resolutions)))
    steps = config.training.batch_size * config.training.accumulation
    text += [
        f"Buckets: {sizes}" + (f" (at {more})" if data.more_resolutions else ""),
        *_named("Pictures", _changes(config)),
        *_named("Captions", _captions(config)),
        f"Length: {plan.epochs} epochs, {plan.steps} steps of {steps}, {plan.images} images seen",
        f"Optimizer: {config.optimizer.name}, {_schedule(config)}, {_rates(plan)}",
        *_named("Loss", _loss(config)),
        *_named("Noise", _noise(config)),
        f"Arithmetic: {plan.precision} on {plan.info.device}, the adapter in fp32{_memory(config)}; about "
        f"{size(figures.memory_bytes)} of memory",
        f"Files: {plan.saves} adapters named {config.name} in {config.save.precision}, "
        f"{size(plan.saves * figures.file_bytes)} in all",
    ]
    if plan.seconds is not None:
        text.append(f"Time: about {duration(plan.seconds)}, without samples and caching")
    return tuple(text)


def _named(name: str, facts: list[str]) -> tuple[str, ...]:
    return (f"{name}: {', '.join(facts)}",) if facts else ()


def _told(*facts: tuple[object, str]) -> list[str]:
    """Return the words of what is on."""
    return [words for on, words in facts if on]


def _share(value: float) -> str:
    return f"{value * 100:g} %"


def _method(config: RunConfig) -> str:
    adapter = config.adapter
    if adapter.start_from:
        return f"{adapter.start_from}, trained on,"
    words = adapter.method
    convolutions = adapter.method != "lora" or adapter.layers == "all"
    if adapter.method in _RANKED:
        words += f" rank {adapter.rank} alpha {adapter.alpha:g}"
        words += f", 3×3 convolutions rank {adapter.conv_rank} alpha {adapter.conv_alpha:g}" * convolutions
    elif adapter.method in ("oft", "boft"):
        words += f" in blocks of {adapter.rank}"
    kron = adapter.method == "lokr"
    extras = _told(
        (adapter.weight_decompose, "DoRA"),
        (adapter.rank_stabilized, "rank-stabilized"),
        (adapter.tucker, "Tucker"),
        (adapter.scalar, "a learned scalar"),
        (kron and adapter.lokr_factor > 0, f"factor {adapter.lokr_factor}"),
        (kron and adapter.lokr_decompose_both, "both factors decomposed"),
        (kron and adapter.lokr_full_matrix, "full matrices"),
        (adapter.method == "dylora", f"in units of {adapter.dylora_unit}"),
        (adapter.oft_constraint, f"constraint {adapter.oft_constraint:g}"),
        (adapter.oft_rescaled, "rescaled"),
    )
    return words + (f" ({', '.join(extras)})" if extras else "")


def _where(plan: Plan) -> str:
    counted = Counter(layer.part for layer in plan.layers)
    return named([f"{count} layers of {part}" for part, count in sorted(counted.items())]) or "no layer"


def _layers(config: RunConfig) -> list[str]:
    adapter = config.adapter
    if adapter.start_from:
        return []
    rules = [rule for rule in adapter.rules if rule.strip()]
    return _told(
        (adapter.layers != "auto", adapter.layers),
        (adapter.norms, "norms"),
        (adapter.blocks.strip(), f"blocks {adapter.blocks}"),
        (rules, f"{len(rules)} exceptions ({'; '.join(rules)})"),
    )


def _regularizers(config: RunConfig) -> list[str]:
    adapter, training = config.adapter, config.training
    return _told(
        (adapter.dropout, f"{_share(adapter.dropout)} of the values dropped"),
        (adapter.rank_dropout, f"{_share(adapter.rank_dropout)} of the rank dropped"),
        (adapter.module_dropout, f"{_share(adapter.module_dropout)} of the layers dropped"),
        (adapter.scale_weight_norms, f"norms held below {adapter.scale_weight_norms:g}"),
        (training.ema, f"weights averaged with decay {training.ema:g}"),
    )


def _concept(concept: Concept, plan: Plan) -> str:
    balanced = plan.config.data.balance_regularization
    seen = times_seen(concept, plan.concepts, plan.images, balanced)
    if concept.regularization and balanced:
        return f"{concept.name}: {concept.images} regularization images, in all as many as the others, {seen} of this folder"
    kind = "regularization images" if concept.regularization else "pictures"
    return (
        f"{concept.name}: {concept.images} {kind} × {concept.repeats:g} = {concept.exposures:g} per epoch, "
        f"{seen} in all"
    )


def _changes(config: RunConfig) -> list[str]:
    data = config.data
    return _told(
        (data.flip, "mirrored at random"),
        (data.color, "colours varied"),
        (data.random_crop, "cropped at random"),
        (data.face_crop_minimum, f"cropped to {data.face_crop_minimum:g} to {data.face_crop_maximum:g} face sizes"),
        (data.cache == "none", "encoded anew each time"),
        (data.cache == "disk", "latents kept on disk"),
    )


def _captions(config: RunConfig) -> list[str]:
    caption, every = config.data.caption, config.data.caption.dropout_every_epochs
    warmup = _share(caption.warmup) + " of the run" if caption.warmup < 1 else f"{caption.warmup:g} steps"
    return _told(
        (caption.prefix, f"{caption.prefix!r} in front"),
        (caption.suffix, f"{caption.suffix!r} at the end"),
        (caption.shuffle, f"shuffled, the first {caption.keep_tokens} kept in place"),
        (caption.dropout, f"{_share(caption.dropout)} left out"),
        (every, f"none in epochs {every}, {2 * every}, …"),
        (caption.tag_dropout, f"{_share(caption.tag_dropout)} of the tags left out"),
        (caption.warmup, f"growing from {caption.warmup_tags} tags for {warmup}"),
        (caption.wildcards, "wildcards chosen"),
        (caption.emphasis, "emphasis read"),
        (config.data.cache_text != "none", "encoded once"),
    )


def _schedule(config: RunConfig) -> str:
    optimizer = config.optimizer
    words = optimizer.schedule
    if optimizer.schedule in ("cosine-restarts", "annealed-cosine") and optimizer.cycles > 1:
        words += f" in {optimizer.cycles} cycles"
    if optimizer.minimum and optimizer.schedule != "constant":
        words += f" down to {_share(optimizer.minimum)}"
    if optimizer.warmup:
        rise = _share(optimizer.warmup) + " of the run" if optimizer.warmup < 1 else f"{optimizer.warmup:g} steps"
        words += f" after a warm-up of {rise}"
    return words


def _rates(plan: Plan) -> str:
    optimizer, until = plan.config.optimizer, plan.config.training.text_encoder_until
    parts = {layer.part for layer in plan.layers}
    for_share = f" for the first {_share(until)} of the run" if until < 1 else ""
    plus = f"LoRA+ with factor {optimizer.lora_plus_ratio:g}"
    facts = _told(
        ("unet" in parts, f"UNet {optimizer.unet_learning_rate:g}"),
        (parts - {"unet"}, f"text encoder {optimizer.text_learning_rate:g}{for_share}"),
        (optimizer.lora_plus_ratio not in (0, 1), plus),
    )
    return ", ".join(facts) or "nothing to train"


def _loss(config: RunConfig) -> list[str]:
    loss = config.loss
    robust = loss.kind in ("huber", "smooth-l1")
    kind = f"{loss.kind} ({loss.huber_schedule}, c {loss.huber_c:g})" if robust else loss.kind
    details = _told((loss.normalize_masks, "by area"), (loss.mask_minimum, f"{loss.mask_minimum:g} outside"))
    return _told(
        (loss.kind != "l2", kind),
        (loss.min_snr_gamma, f"min-SNR {loss.min_snr_gamma:g}"),
        (loss.debiased, "debiased estimation"),
        (loss.v_like, f"v-like loss {loss.v_like:g}"),
        (loss.scale_v_like_noise, "v loss scaled like noise"),
        (loss.masked, "masked" + (f" ({', '.join(details)})" if details else "")),
        (loss.prior_weight != 1, f"regularization images × {loss.prior_weight:g}"),
    )


def _noise(config: RunConfig) -> list[str]:
    noise = config.noise
    upto = "up to "
    return _told(
        (noise.offset, f"offset {upto * noise.offset_random}{noise.offset:g}"),
        (noise.adaptive_offset, f"adaptive {noise.adaptive_offset:g}"),
        (noise.pyramid_iterations, f"pyramid of {noise.pyramid_iterations}, discount {noise.pyramid_discount:g}"),
        (
            noise.input_perturbation,
            f"ip-noise {upto * noise.input_perturbation_random}{noise.input_perturbation:g}",
        ),
        (noise.timesteps != "uniform", f"timesteps {noise.timesteps}"),
        (noise.timesteps == "logit-normal" and noise.timestep_bias, f"bias {noise.timestep_bias:g}"),
        (
            noise.minimum_timestep > 0 or noise.maximum_timestep < 1000,
            f"timesteps from {noise.minimum_timestep} to {noise.maximum_timestep - 1}",
        ),
        (noise.zero_terminal_snr != "auto", f"zero terminal SNR {noise.zero_terminal_snr}"),
    )


def _memory(config: RunConfig) -> str:
    training = config.training
    facts = _told(
        (training.fp8_base, "the UNet's weights in 8 bits"),
        (training.gradient_checkpointing, "gradient checkpointing"),
        (training.compile, "compiled"),
        (training.channels_last, "channels last"),
    )
    return "".join(f", {fact}" for fact in facts)
