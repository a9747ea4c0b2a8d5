"""Regularization images in the WebUI: plain txt2img's pixels, whatever was generated before, and the files of any run."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dying_files import in_child
from lib_lora_trainer.app import reg_jobs
from lib_lora_trainer.app.reg_jobs import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.base.events import Note, SampleMade
from lib_lora_trainer.hosts.api import ImageRequest, Needs
from reg_cases import QUICK, config, contents, drafted, generated
from tool_cases import picture
from webui_steps import pixels

pytest_plugins = ("webui_session",)

CAPTIONS = {
    "one.png": ((128, 128), "mikori, 1girl, smile"),
    "two.png": ((64, 192), "mikori, hat (large), 16:9"),
    "three.png": ((128, 128), "mikori, 1girl, smile"),
}


@pytest.fixture
def request_(tmp_path):
    root = tmp_path / "train"
    for seed, (name, (size, caption)) in enumerate(CAPTIONS.items()):
        picture(root / name, size, caption=caption, seed=seed)
    plain = config(root)
    run = replace(plain, data=replace(plain.data, resolution=128, bucket_minimum=64, bucket_step=64))
    return Request(run, QUICK, tmp_path / "reg")


def merge_a_network(webui) -> np.ndarray:
    """Use `<lora:…>` in txt2img, which merges it into the weights; return the image it gave."""
    name = "unet_input_blocks_1_1_proj_in"
    generator = torch.Generator().manual_seed(9)
    tensors = {
        f"lora_{name}.lora_down.weight": torch.randn(2, 32, 1, 1, generator=generator),
        f"lora_{name}.lora_up.weight": torch.randn(32, 2, 1, 1, generator=generator),
        f"lora_{name}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, str(webui.lora_folder / "strong.safetensors"))
    digest = webui.digest()
    image = pixels(webui.txt2img("a red cat<lora:strong:1>").images[0])
    assert webui.digest() != digest
    return image


def test_images_are_plain_txt2img_at_their_seeds_also_after_a_network(host, webui, request_):
    plain = pixels(webui.txt2img().images[0])
    with_network = merge_a_network(webui)
    assert np.abs(with_network - plain).mean() > 1
    events = generated(host, request_)
    made = {event.path: event for event in events if isinstance(event, SampleMade)}
    texts = {
        "one": "1girl, smile",
        "three": "1girl, smile",
        "two": "hat (large), 16:9",
    }
    assert {name: data.decode() for name, data in contents(request_.folder).items() if name.endswith(".txt")} == {
        f"train/{name}.txt": text for name, text in texts.items()
    }
    webui.txt2img()  # takes the network out again
    prompts = {**texts, "two": "hat \\(large\\), 16:9\\"}
    for name, prompt in prompts.items():
        path = request_.folder / "train" / f"{name}.png"
        with Image.open(path) as image:
            expected = webui.txt2img(
                prompt, negative_prompt=QUICK.negative, seed=made[str(path)].seed, steps=2, cfg_scale=3.0,
                width=image.width, height=image.height,
            )  # fmt: skip
            assert np.array_equal(pixels(image), pixels(expected.images[0])), name
            assert image.info["parameters"] == expected.infotexts[0]
    assert np.array_equal(pixels(webui.txt2img("a red cat<lora:strong:1>").images[0]), with_network)
    assert np.array_equal(pixels(webui.txt2img().images[0]), plain)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_killed_run_goes_on_to_the_files_of_an_uninterrupted_one(host, webui, request_, tmp_path):
    merge_a_network(webui)
    generated(host, replace(request_, folder=tmp_path / "whole"))

    def dying(count):
        left = iter(range(count - 1, -1, -1))

        def die_at_last(handle):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = die_at_last
        list(reg_jobs.generate(host, request_, Control()))

    for count in (1, 2, 3, 2):
        webui.txt2img("a red cat<lora:strong:1>")
        assert in_child(lambda count=count: dying(count)) == -signal.SIGKILL
    webui.txt2img("a red cat<lora:strong:1>")
    assert contents(request_.folder) != contents(tmp_path / "whole")
    generated(host, request_)
    assert contents(request_.folder) == contents(tmp_path / "whole")


def test_an_interrupted_image_is_made_by_the_next_run(host, request_, monkeypatch):
    from modules import sd_hijack, shared

    pressed = []
    circular = sd_hijack.model_hijack.apply_circular

    def press_at_second(enable):
        circular(enable)
        pressed.append(True)
        if len(pressed) == 4:
            shared.state.interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(sd_hijack.model_hijack, "apply_circular", press_at_second)
        events = generated(host, request_)
    assert events[-1].reason == "stopped" and events[-1].step == 2
    assert any(isinstance(event, Note) and "1 of 3 images are still to be made" in event.text for event in events)
    generated(host, request_)
    assert drafted(host, request_).todo == frozenset() and len(list(request_.folder.rglob("*.png"))) == 3


def test_an_image_nobody_waits_for_ends_between_two_steps(host, webui):
    from modules import shared

    steps = []
    hook = webui.model.model.diffusion_model.register_forward_hook(lambda *_: steps.append(1))
    wanted = ImageRequest("a red cat", "blurred", 5, 2, 4.0, 64, 64, "Euler")
    long = replace(wanted, steps=150)
    try:
        with host.lease(Needs()) as lease:
            made = list(lease.generate([wanted, long, wanted], lambda: len(steps) < 4))
            assert [image.request for image in made] == [wanted] and 4 <= len(steps) < 100
            assert not shared.state.interrupted
            (again,) = lease.generate([wanted])
            assert np.array_equal(pixels(again.image), pixels(made[0].image))
    finally:
        hook.remove()


def test_a_sampler_with_a_schedule_is_that_of_txt2img(host, webui, request_):
    karras = replace(request_, options=replace(QUICK, scheduler="Karras", steps=3), only=("one",))
    (made,) = [event for event in generated(host, karras) if isinstance(event, SampleMade)]
    expected = webui.txt2img(
        "1girl, smile", negative_prompt=QUICK.negative, seed=made.seed, cfg_scale=3.0, width=128, height=128,
        scheduler="Karras",
    )  # fmt: skip
    assert np.array_equal(pixels(Image.open(made.path)), pixels(expected.images[0]))
    with pytest.raises(ProblemsFound, match=r"regularization.sampler: 'Nothing' is not a sampler here"):
        generated(host, replace(request_, options=replace(QUICK, sampler="Nothing")))
    with pytest.raises(ConfigError, match="unknown to the WebUI"):
        generated(host, replace(request_, options=replace(QUICK, scheduler="Nothing"), only=("two",)))
    assert not (request_.folder / "train" / "two.png").exists()


@pytest.mark.webui  # the stand-in has no PNG Info
def test_png_info_reads_them_and_the_prompt_is_the_caption(host, request_):
    from modules import infotext_utils, prompt_parser
    from modules.images import read_info_from_image

    generated(host, request_)
    with Image.open(request_.folder / "train" / "two.png") as image:
        text, _ = read_info_from_image(image)
    found = infotext_utils.parse_generation_parameters(text)
    assert (found["Prompt"], found["Negative prompt"]) == ("hat \\(large\\), 16:9\\", QUICK.negative)
    assert (found["Steps"], found["Sampler"], found["Size-1"], found["Size-2"]) == ("2", "Euler", "64", "192")
    _, flat, _ = prompt_parser.get_multicond_prompt_list([found["Prompt"]])
    indexes, _, _ = prompt_parser.get_multicond_prompt_list([found["Prompt"]])
    assert [weight for _, weight in indexes[0]] == [1.0]
    assert prompt_parser.parse_prompt_attention(flat[0]) == [["hat (large), 16:9", 1.0]]
