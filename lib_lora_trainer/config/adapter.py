"""What is trained: the adapter's method, size and where it is attached."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.setting import setting

METHODS = ("lora", "locon", "loha", "lokr", "ia3", "dylora", "oft", "boft", "glora", "full")


@dataclass(frozen=True)
class AdapterConfig:
    """An adapter on the UNet, the text encoder or both."""

    method: str = setting(
        "lora",
        "lora: linear layers. locon: convolutions as well. loha, lokr: products of small factors, for styles and many "
        "concepts. ia3: a few scales, tiny file. dylora: every rank usable. oft, boft: rotations. glora: general form. "
        "full: every weight.",
        choices=METHODS, essential=True, label="Method",
    )  # fmt: skip
    rank: int = setting(
        16, "Width of the adapter (dim): more stores more detail and a larger file. oft and boft: size of the blocks.",
        minimum=1, maximum=1024, essential=True, label="Rank (dim)",
    )  # fmt: skip
    alpha: float = setting(
        8.0, "Scale: the adapter's strength is alpha / rank; raising it acts like a higher learning rate.",
        minimum=0.001, maximum=4096, essential=True, label="Alpha",
    )  # fmt: skip
    conv_rank: int = setting(
        8, "Rank of 3×3 convolutions.", minimum=1, maximum=1024, label="Convolution rank"
    )
    conv_alpha: float = setting(
        4.0, "Alpha of 3×3 convolutions.", minimum=0.001, maximum=4096, label="Convolution alpha"
    )
    unet: bool = setting(True, "Train the UNet.", label="Train UNet")
    text_encoder: bool = setting(True, "Train the text encoder(s).", label="Train text encoder")
    layers: str = setting(
        "auto",
        "auto: what suits the method (lora: attention and MLP; ia3: keys, values and the MLP's end; others: "
        "everything). attention: attention alone. attention-mlp: with the MLPs. linear: every linear layer. "
        "all: convolutions as well.",
        choices=("auto", "attention", "attention-mlp", "linear", "all"), label="Layers",
    )  # fmt: skip
    norms: bool = setting(False, "Train the norm layers of what is chosen as well.", label="Train norms")
    blocks: str = setting(
        "",
        "Blocks of the UNet to train, e.g. IN04-07,MID,OUT03-06, or 12, 17, 20 or 26 numbers as lora-block-weight "
        "writes them (0 = off). Empty: all.",
        label="Blocks",
    )
    rules: tuple[str, ...] = setting(
        (),
        "Exceptions, one a line, the last one that fits counts. `IN04-07: rank=8 alpha=4 lr=0.5`, `OUT09-11: off`, "
        "`TE: lr=0.5`, or a pattern for layers: `/attn1\\.to_q/: conv_rank=4 method=lokr`.",
        label="Rules for blocks and layers",
    )
    dropout: float = setting(
        0.0, "Share of the adapter's inner values dropped at random in each step.",
        minimum=0.0, maximum=0.95, label="Dropout",
    )  # fmt: skip
    rank_dropout: float = setting(
        0.0, "Share of the rank dropped at random in each step.", minimum=0.0, maximum=0.95, label="Rank dropout"
    )
    module_dropout: float = setting(
        0.0, "Share of layers whose adapter is left out at random in each step.",
        minimum=0.0, maximum=0.95, label="Module dropout",
    )  # fmt: skip
    scale_weight_norms: float = setting(
        0.0, "Largest norm of a layer's delta; larger ones are scaled down after each step. 1 is usual, 0 = off.",
        minimum=0.0, maximum=1000.0, label="Scale weight norms",
    )  # fmt: skip
    weight_decompose: bool = setting(
        False, "DoRA: learn direction and size of the weights apart (lora, locon, loha, lokr).", label="DoRA"
    )
    rank_stabilized: bool = setting(
        False, "rs-LoRA: alpha / √rank instead of alpha / rank.", label="Rank-stabilized scale"
    )
    tucker: bool = setting(False, "Tucker decomposition of 3×3 convolutions: smaller files.", label="Tucker")
    scalar: bool = setting(False, "One learned factor per layer, starting at 0.", label="Learned scalar")
    lokr_factor: int = setting(
        -1, "Size of lokr's smaller factor; -1: as near to the square root as possible.",
        minimum=-1, maximum=1024, label="LoKr factor",
    )  # fmt: skip
    lokr_decompose_both: bool = setting(False, "lokr: low rank in both factors.", label="LoKr: decompose both")
    lokr_full_matrix: bool = setting(False, "lokr: no low rank at all.", label="LoKr: full matrix")
    dylora_unit: int = setting(
        4, "dylora: ranks grow in steps of this; one file per step is written at the end.",
        minimum=1, maximum=1024, label="DyLoRA unit",
    )  # fmt: skip
    oft_constraint: float = setting(
        0.0, "oft, boft: how far a rotation may go; 0 = freely.", minimum=0.0, maximum=1000.0, label="OFT constraint"
    )
    oft_rescaled: bool = setting(False, "oft, boft: learn a factor per output as well.", label="OFT rescaled")
    start_from: str = setting(
        "", "An adapter file to go on from; its method, layers and ranks replace those above.", label="Start from"
    )
