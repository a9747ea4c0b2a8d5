"""The names of model families, their prediction types and their parts."""

from __future__ import annotations

from typing import Literal

Family = Literal["sd1", "sd2", "sdxl"]
Prediction = Literal["epsilon", "v"]
Part = Literal["unet", "te", "te1", "te2"]
