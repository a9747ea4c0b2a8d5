"""What is trained: the adapter's method, size and where it is attached."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.setting import setting


@dataclass(frozen=True)
class AdapterConfig:
    """A LoRA or LoCon on the UNet, the text encoder or both."""

    method: str = setting(
        "lora", "lora: linear layers only. locon: convolutions as well.",
        choices=("lora", "locon"), essential=True, label="Method",
    )  # fmt: skip
    rank: int = setting(
        16, "Width of the adapter (dim): more stores more detail and a larger file.",
        minimum=1, maximum=1024, essential=True, label="Rank (dim)",
    )  # fmt: skip
    alpha: float = setting(
        8.0, "Scale: the adapter's strength is alpha / rank; raising it acts like a higher learning rate.",
        minimum=0.001, maximum=4096, essential=True, label="Alpha",
    )  # fmt: skip
    conv_rank: int = setting(8, "Rank of 3×3 convolutions (locon).", minimum=1, maximum=1024)
    conv_alpha: float = setting(4.0, "Alpha of 3×3 convolutions (locon).", minimum=0.001, maximum=4096)
    unet: bool = setting(True, "Train the UNet.", label="Train UNet")
    text_encoder: bool = setting(True, "Train the text encoder(s).", label="Train text encoder")
    dropout: float = setting(
        0.0, "Share of the adapter's inner values dropped at random in each step.",
        minimum=0.0, maximum=0.95, label="Dropout",
    )  # fmt: skip
