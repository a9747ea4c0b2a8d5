"""The plan in words."""

from __future__ import annotations

from lib_lora_trainer.plan.plan import Plan


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
    """Return what the run will do, one fact a line."""
    config, figures = plan.config, plan.estimate
    parts = sorted({layer.part for layer in plan.layers})
    adapter = f"{config.adapter.method} rank {config.adapter.rank} alpha {config.adapter.alpha:g}"
    if config.adapter.method == "locon":
        adapter += f", 3×3 convolutions rank {config.adapter.conv_rank} alpha {config.adapter.conv_alpha:g}"
    text = [
        f"Model: {plan.info.title} ({plan.info.family}, predicts {plan.info.prediction}) in {plan.info.host}",
        f"Adapter: {adapter} on {len(plan.layers)} layers of {', '.join(parts)}: "
        f"{figures.parameters / 1e6:.2f} M values, {size(figures.file_bytes)} per file",
    ]
    for concept in plan.concepts:
        seen = concept.exposures * config.training.epochs
        text.append(
            f"{concept.name}: {concept.images} pictures × {concept.repeats} = {concept.exposures} per epoch, "
            f"{seen} in all"
        )
    sizes = ", ".join(f"{width}×{height}: {count}" for (width, height), count in plan.buckets.items())
    text += [
        f"Buckets: {sizes}",
        f"Length: {plan.epochs} epochs, {plan.steps} steps of "
        f"{config.training.batch_size * config.training.accumulation}, {plan.images} images seen",
        f"Optimizer: AdamW, {config.optimizer.schedule}, UNet {config.optimizer.unet_learning_rate:g}, "
        f"text encoder {config.optimizer.text_learning_rate:g}",
        f"Arithmetic: {plan.precision} on {plan.info.device}, about {size(figures.memory_bytes)} of memory",
        f"Files: {plan.saves} adapters named {config.name}, {size(plan.saves * figures.file_bytes)} in all",
    ]
    if plan.seconds is not None:
        text.append(f"Time: about {duration(plan.seconds)}, without samples and caching")
    return tuple(text)
