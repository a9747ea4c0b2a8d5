"""Grids in the real WebUI: a cell is the image that txt2img makes, and the WebUI is afterwards what it was."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from grid_cases import write_adapter
from lib_lora_trainer.app import baking, grid_jobs
from lib_lora_trainer.app.grid_jobs import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ProblemsFound
from lib_lora_trainer.base.events import SampleMade
from lib_lora_trainer.evaluate.grid import NONE, Axis, GridConfig
from lib_lora_trainer.evaluate.grid_cells import prompt_of
from test_bake_webui import METHODS, VECTOR
from webui_steps import pixels

pytest_plugins = ("webui_session",)
pytestmark = pytest.mark.webui

CONFIG = GridConfig(
    prompt="a red cat", negative="blurred", steps=3, guidance=4.0, width=64, height=64, sampler="Euler", seeds=(5,)
)


@pytest.fixture
def studio(host):
    from lib_lora_trainer.hosts.webui.blockweights import block_weights
    from lib_lora_trainer.hosts.webui.grid_images import WebuiStudio

    yield WebuiStudio()
    block_weights().undo()


@pytest.fixture
def adapter(webui, host):
    def write(name: str, **options) -> str:
        path = write_adapter(host, webui.lora_folder / f"{name}.safetensors", **options)
        host.announce(path)
        return path

    return write


def made(studio, config, folder):
    """Make a grid and return its images and infotexts by their places, and the grid's scenes."""
    request = Request(config, folder)
    events = list(grid_jobs.run(studio, request, Control()))
    assert events[-1].reason == "done", events
    draft = grid_jobs.draft(studio, request)
    assert draft.missing == ()
    found = {}
    for place, scene in draft.grid.scenes.items():
        with Image.open(draft.path(scene)) as image:
            found[place[:2]] = (pixels(image), image.text["parameters"], scene)
    return found


def test_a_cell_is_txt2img_to_the_pixel(studio, webui, adapter, tmp_path):
    file = adapter("grid-plain")
    second = adapter("grid-second", size=0.1, method="full")
    webui.txt2img("something else <lora:grid-second:0.3>")  # what is merged before does not matter
    axes = (Axis("weight", ("1", "0.7/0.3", "0")), Axis("second", (NONE, second)))
    found = made(studio, replace(CONFIG, adapter=file, axes=axes), tmp_path)
    for column, weight in enumerate((":1", ":0.3:0.7", None)):
        for row, other in enumerate(("", " <lora:grid-second:1>")):
            tag = f" <lora:grid-plain{weight}>" if weight else ""
            expected = webui.txt2img(f"a red cat{tag}{other}")
            image, infotext, _ = found[column, row]
            assert np.array_equal(image, pixels(expected.images[0])), (weight, other)
            assert infotext == expected.infotexts[0]
    different = [image for (column, row), (image, _, _) in found.items()]
    assert all(np.abs(a - b).max() > 2 for i, a in enumerate(different) for b in different[:i])


def test_other_settings_are_those_of_txt2img(studio, webui, adapter, tmp_path):
    file = adapter("grid-plain")
    changes = {
        "sampler": ("DPM++ 2M", {"sampler_name": "DPM++ 2M"}),
        "scheduler": ("Karras", {"scheduler": "Karras"}),
        "steps": ("2", {"steps": 2}),
        "guidance": ("6", {"cfg_scale": 6.0}),
        "size": ("128x64", {"width": 128}),
        "seed": ("9", {"seed": 9}),
        "hires": ("2", {"enable_hr": True, "hr_scale": 2.0, "hr_upscaler": "Latent", "denoising_strength": 0.7}),
    }
    for kind, (value, options) in changes.items():
        config = replace(CONFIG, adapter=file, weight=0.5, axes=(Axis(kind, (value,)),))
        image, infotext, _ = made(studio, config, tmp_path)[0, 0]
        expected = webui.txt2img("a red cat <lora:grid-plain:0.5>", **options)
        assert np.array_equal(image, pixels(expected.images[0])), kind
        assert infotext == expected.infotexts[0], kind
    config = replace(CONFIG, adapter=file, weight=0.5, axes=(Axis("clip_skip", ("2",)),))
    image, infotext, _ = made(studio, config, tmp_path)[0, 0]
    from lib_lora_trainer.hosts.webui.restoring import options_set

    # The WebUI's own override_settings does not put back an option that was never set.
    with options_set(CLIP_stop_at_last_layers=2):
        expected = webui.txt2img("a red cat <lora:grid-plain:0.5>")
    assert np.array_equal(image, pixels(expected.images[0])) and infotext == expected.infotexts[0]


@pytest.mark.parametrize("method", [*METHODS, "dora"])
def test_block_weights_are_the_baked_file(studio, webui, host, adapter, tmp_path, method):
    options = {"method": "locon", "weight_decompose": True} if method == "dora" else {"method": method}
    name = f"grid-{method}"
    file = adapter(name, **{**options, "rank": 8 if method == "oft" else 4})
    out = webui.lora_folder / f"{name}-baked.safetensors"
    list(baking.run(baking.plan(baking.Request(Path(file), out, VECTOR, overwrite=True)), host))
    host.announce(str(out))
    axes = (Axis("blocks", (VECTOR, "ALL")),)
    found = made(studio, replace(CONFIG, adapter=file, weight=0.7, axes=axes), tmp_path)
    expected = pixels(webui.txt2img(f"a red cat <lora:{out.stem}:0.7>").images[0])
    assert np.abs(found[0, 0][0] - expected).max() <= 2
    assert np.abs(found[0, 0][0] - found[1, 0][0]).max() > 2
    from lib_lora_trainer.hosts.webui.blockweights import block_weights

    assert block_weights().install()  # as where the extension is registered
    again = webui.txt2img(prompt_of(found[0, 0][2]))
    assert np.array_equal(pixels(again.images[0]), found[0, 0][0])
    assert again.infotexts[0] == found[0, 0][1]


def test_checkpoints_take_turns_and_the_users_comes_back(studio, webui, adapter, tmp_path):
    from modules import shared

    file = adapter("grid-plain")
    webui.txt2img()  # what was merged before goes
    before, option = webui.digest(), shared.opts.data["sd_model_checkpoint"]
    axes = (Axis("checkpoint", ("second", "")), Axis("weight", ("1", "0")))
    found = made(studio, replace(CONFIG, adapter=file, axes=axes), tmp_path)
    assert webui.model.sd_checkpoint_info.name_for_extra == "first"
    assert shared.opts.data["sd_model_checkpoint"] == option
    assert np.array_equal(found[1, 0][0], pixels(webui.txt2img("a red cat <lora:grid-plain:1>").images[0]))
    assert np.array_equal(found[1, 1][0], pixels(webui.txt2img("a red cat").images[0]))
    assert webui.digest() == before
    webui.load("second")
    for row, prompt in enumerate(("a red cat <lora:grid-plain:1>", "a red cat")):
        assert np.array_equal(found[0, row][0], pixels(webui.txt2img(prompt).images[0]))
    webui.load("first")


def test_a_vae_is_the_webuis_own(studio, webui, tmp_path):
    from modules import sd_vae

    from lib_lora_trainer.hosts.webui.restoring import options_set

    tensors = load_file(str(webui.folder / "second.safetensors"))
    prefix = "first_stage_model."
    folder = Path(sd_vae.vae_path)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)},
        str(folder / "other.safetensors"),
    )
    webui.txt2img()  # what was merged before goes
    before = webui.digest()
    found = made(studio, replace(CONFIG, axes=(Axis("vae", ("other.safetensors", "", "None")),)), tmp_path)
    assert webui.digest() == before
    assert np.array_equal(found[1, 0][0], pixels(webui.txt2img().images[0]))
    assert np.array_equal(found[2, 0][0], found[1, 0][0])
    with options_set(sd_vae="other.safetensors"):
        sd_vae.reload_vae_weights()
        expected = webui.txt2img()
    sd_vae.reload_vae_weights()
    assert np.array_equal(found[0, 0][0], pixels(expected.images[0]))
    assert found[0, 0][1] == expected.infotexts[0]
    assert np.abs(found[0, 0][0] - found[1, 0][0]).max() > 2


def test_an_interrupted_grid_goes_on_and_leaves_no_trace(studio, webui, adapter, tmp_path):
    config = replace(CONFIG, adapter=adapter("grid-plain"), axes=(Axis("weight", ("0.5", "1", "0.2")),))
    whole = made(studio, config, tmp_path / "whole")
    before = webui.digest()
    control = Control()
    events = []
    for event in grid_jobs.run(studio, Request(config, tmp_path / "parts"), control):
        events.append(event)
        if isinstance(event, SampleMade):
            control.ask("stop")
    assert events[-1].reason == "stopped" and events[-1].step == 1
    webui.txt2img("a red cat <lora:grid-plain:0.9>")
    parts = made(studio, config, tmp_path / "parts")
    assert all(np.array_equal(parts[place][0], whole[place][0]) for place in whole)
    sums = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert sums[0] == sums[1]
    assert webui.digest() == before


def test_no_adapter_stays_in_the_weights(studio, webui, adapter, tmp_path):
    webui.txt2img("a red cat")
    before = webui.digest()
    made(studio, replace(CONFIG, adapter=adapter("grid-plain")), tmp_path)
    assert webui.digest() == before
    webui.txt2img("a red cat <lora:grid-plain:1>")
    assert webui.digest() != before, "the built-in extension leaves it there until the next image"


def test_a_file_written_anew_is_merged_anew(studio, webui, adapter, tmp_path):
    config = replace(CONFIG, adapter=adapter("grid-again"))
    first = made(studio, config, tmp_path)[0, 0][0]
    adapter("grid-again", size=0.05)
    second = made(studio, config, tmp_path)[0, 0][0]
    assert np.abs(first - second).max() > 2
    assert np.array_equal(second, pixels(webui.txt2img("a red cat <lora:grid-again:1>").images[0]))


def test_what_cannot_be_had_is_said_before_anything_is_made(studio, webui, adapter, tmp_path):
    file = Path(adapter("grid-plain"))
    elsewhere = shutil.copy(file, tmp_path / "grid-elsewhere.safetensors")
    twin = shutil.copy(file, tmp_path / "grid-plain.safetensors")
    cases = {
        "'Nothing' is unknown to the WebUI": {"sampler": "Nothing"},
        "scheduler: 'Never' is unknown": {"scheduler": "Never"},
        "'third' is not in the WebUI's list of checkpoints": {"checkpoint": "third"},
        "vae: 'none.pt' is unknown": {"vae": "none.pt"},
        "hires_upscaler: 'Magic' is unknown": {"hires": 2.0, "hires_upscaler": "Magic"},
        "grid-elsewhere.safetensors is not in the WebUI's folder": {"adapter": elsewhere},
        "<lora:grid-plain> is .*, not .*": {"adapter": twin},
        "size: 100x64 cannot be made": {"width": 100},
    }
    for said, changes in cases.items():
        with pytest.raises(ProblemsFound, match=said):
            list(grid_jobs.run(studio, Request(replace(CONFIG, **changes), tmp_path / "grid"), Control()))
    assert not (tmp_path / "grid").exists()
