"""Writes the files of CLIP's tokenizer from the merge list that the open_clip or clip package carries."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

from lib_lora_trainer.base.errors import UserError

MERGE_FILE = "bpe_simple_vocab_16e6.txt.gz"
PACKAGES = ("open_clip", "clip")
VOCABULARY_SIZE = 49408
START, END = "<|startoftext|>", "<|endoftext|>"


def find_merge_file() -> Path:
    """Return the path of CLIP's merge list without importing the package that carries it.

    Raises UserError if neither ``open_clip`` nor ``clip`` is installed with that file.
    """
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            path = Path(folder) / MERGE_FILE
            if path.is_file():
                return path
    raise UserError(
        f"CLIP's word list {MERGE_FILE} was not found: neither the package open_clip nor clip is installed with it. "
        "Install it with: python -m pip install --no-deps open_clip_torch"
    )


def read_merges() -> list[tuple[str, str]]:
    """Return CLIP's 48,894 byte-pair merges in order of rank."""
    lines = gzip.decompress(find_merge_file().read_bytes()).decode("utf-8").split("\n")
    merges = []
    for line in lines[1 : VOCABULARY_SIZE - 2 * 256 - 2 + 1]:
        left, right = line.split()
        merges.append((left, right))
    return merges


def make_vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Return CLIP's 49,408 tokens with their numbers: bytes, bytes that end a word, merges, start, end."""
    letters = _byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges), START, END]
    return {token: number for number, token in enumerate(tokens)}


def write_clip_tokenizer(folder: Path) -> None:
    """Write vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json into ``folder``.

    ``transformers.CLIPTokenizer.from_pretrained(folder)`` reads them; padding is the end token, as in SD1.x.
    Creates ``folder``; raises UserError if the merge list is not installed.
    """
    merges = read_merges()
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        **special,
    }
    _write(folder / "vocab.json", json.dumps(make_vocabulary(merges), ensure_ascii=False))
    _write(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges))
    _write(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
    _write(folder / "special_tokens_map.json", json.dumps(special, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _byte_letters() -> list[str]:
    """Return one printable letter per byte: printable Latin-1 stands for itself, the rest follow from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(0xAE, 0xFF + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(rest))]
