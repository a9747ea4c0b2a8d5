"""The page of settings says what the settings are."""

from __future__ import annotations

from pathlib import Path

from lib_lora_trainer.config import reference
from lib_lora_trainer.config.paths import flat
from lib_lora_trainer.config.run import RunConfig

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    """If this fails: python -m lib_lora_trainer settings > docs/settings.md."""
    assert PAGE.read_text(encoding="utf-8") == reference.markdown()


def test_every_setting_is_in_it() -> None:
    page = reference.markdown()
    for path, _ in flat(RunConfig()):
        if path not in ("version", "data.sources"):
            assert f"| `{path.rpartition('.')[2]}` |" in page
    assert "[[data.sources]]" in page and "| `prior_preservation` | false |" in page
    assert "| `beta1` | none |" in page and "0 to 0.9999" in page
