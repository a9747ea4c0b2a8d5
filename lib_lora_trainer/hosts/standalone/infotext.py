"""The WebUI's parameter text of a generated image."""

from __future__ import annotations

from lib_lora_trainer.hosts.api import ImageRequest, ModelInfo

_SHORT_HASH = 10


def write_infotext(request: ImageRequest, info: ModelInfo) -> str:
    """Return the text that the WebUI's PNG Info reads and txt2img repeats; sampler names as since WebUI 1.9."""
    sampler = request.sampler.removesuffix(" Karras")
    settings = {
        "Steps": request.steps,
        "Sampler": sampler,
        "Schedule type": "Automatic" if sampler == request.sampler else "Karras",
        "CFG scale": f"{request.guidance:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": info.sha256[:_SHORT_HASH],
        "Model": info.name.replace(",", "").replace(":", ""),
        "Clip skip": request.clip_skip if request.clip_skip > 1 else "",
        "RNG": "CPU",
    }
    lines = [request.prompt]
    if request.negative:
        lines.append(f"Negative prompt: {request.negative}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items() if value != ""))
    return "\n".join(lines)
