"""Recipes: sets of values that a published guide recommends, applied onto a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lib_lora_trainer.config.recipes import characters, methods, subjects
from lib_lora_trainer.config.recipes.recipe import Recipe, apply

__all__ = ["RECIPES", "Recipe", "apply"]

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {recipe.name: recipe for recipe in (*characters.ALL, *subjects.ALL, *methods.ALL, characters.TOY)}
)
"""Every recipe by its name, in the order in which they are offered."""
