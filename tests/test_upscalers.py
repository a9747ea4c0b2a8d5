"""The WebUI's upscalers: what is listed, that its model does the work, and that the WebUI is as it was afterwards."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.dataset.tools.upscale import lanczos
from tool_cases import drafted, names, noise, picture, run, settings, undo

REAL = bool(os.environ.get("SD_WEBUI_DIR", ""))
pytest_plugins = ("webui_session",)


class Double:
    """An upscaler of the WebUI's kind: doubles each pixel, and counts what it did."""

    def __init__(self, factor: int = 2) -> None:
        self.scale, self.factor, self.kept = 1, factor, None
        self.calls: list[tuple[tuple[int, int], str, bool]] = []
        self.model_path = None

    def do_upscale(self, image, selected):
        from modules import call_queue, shared

        self.calls.append((image.size, selected, call_queue.queue_lock.acquire(blocking=False)))
        self.kept = "a model"
        torch.manual_seed(1)
        assert shared.state.job == "lora-trainer upscale"
        return image.resize((image.width * self.factor, image.height * self.factor), Image.Resampling.NEAREST)


def data(name, scaler, path="model.pth"):
    return SimpleNamespace(name=name, scaler=scaler, data_path=path, local_data_path=path)


@pytest.fixture
def upscalers(webui, monkeypatch):
    """Return the module, with the WebUI's list replaced by what a test sets in `list`."""
    from modules import call_queue, devices, shared

    from lib_lora_trainer.hosts.webui import upscalers

    class Lock:
        """The WebUI's lock, without waiting: a second holder is told no."""

        def __init__(self) -> None:
            self.held = False

        def acquire(self, blocking=True):
            if self.held:
                assert not blocking, "the lock is held already"
                return False
            self.held = True
            return True

        def release(self):
            self.held = False

        __enter__ = acquire

        def __exit__(self, *_):
            self.release()

    lock = Lock()
    monkeypatch.setattr(call_queue, "queue_lock", lock)
    monkeypatch.setattr(devices, "torch_gc", lambda: None, raising=False)
    monkeypatch.setattr(shared, "sd_upscalers", [], raising=False)
    return SimpleNamespace(module=upscalers, shared=shared, lock=lock)


def test_what_the_webui_lists_without_what_is_there_anyway(upscalers, tmp_path):
    one, two = Double(), Double()
    two.model_path, two.model_name = str(tmp_path), "Fetched 4x"
    upscalers.shared.sd_upscalers[:] = [
        data("None", one, None), data("Lanczos", one, None), data("R-ESRGAN", one), data("R-ESRGAN", two),
        data("Fetched", two, "https://host/weights/fetched.pth"),
    ]  # fmt: skip
    assert [(each.name, each.download) for each in upscalers.module.listed()] == [
        ("R-ESRGAN", ""),
        ("Fetched", "https://host/weights/fetched.pth"),
    ]
    (tmp_path / "Fetched_4x.pth").write_bytes(b"")
    assert upscalers.module.listed()[1].download == ""
    upscalers.module.listed()[0].upscale(noise((8, 8)), (16, 16))
    assert len(one.calls) == 1 and not two.calls


def test_it_is_applied_until_the_picture_is_large_enough_under_the_queue_s_lock(upscalers):
    scaler = Double()
    upscalers.shared.sd_upscalers[:] = [data("Double", scaler, "double.pth")]
    (found,) = upscalers.module.listed()
    before, state = dict(vars(scaler)), torch.get_rng_state()
    image = noise((10, 20), 3)
    made = found.upscale(image, (35, 70))
    assert [call[0] for call in scaler.calls] == [(10, 20), (20, 40)] and made.size == (40, 80)
    assert np.array_equal(np.asarray(made)[::4, ::4], np.asarray(image))
    assert all(call[1:] == ("double.pth", False) for call in scaler.calls)  # nobody else could take the lock
    assert not upscalers.lock.held and vars(scaler) == before and torch.equal(torch.get_rng_state(), state)
    assert found.upscale(image, (10, 20)) is image


def test_an_upscaler_that_does_nothing_is_an_error(upscalers):
    upscalers.shared.sd_upscalers[:] = [data("Idle", Double(1))]
    with pytest.raises(DataError, match="Idle: gave a picture of 8×8 pixels back"):
        upscalers.module.listed()[0].upscale(noise((8, 8)), (16, 16))
    assert not upscalers.lock.held


def test_interrupt_ends_it_and_is_forgotten(upscalers, monkeypatch):
    scaler = Double()
    work = scaler.do_upscale

    def interrupted(image, selected):
        upscalers.shared.state.interrupted = True
        return work(image, selected)

    scaler.do_upscale = interrupted
    upscalers.shared.sd_upscalers[:] = [data("Double", scaler)]
    with pytest.raises(DataError, match="was interrupted"):
        upscalers.module.listed()[0].upscale(noise((8, 8)), (16, 16))
    assert not upscalers.lock.held and not upscalers.shared.state.interrupted


def test_the_host_offers_them_and_a_dataset_is_enlarged_by_one(upscalers, host, tmp_path):
    scaler = Double()
    upscalers.shared.sd_upscalers[:] = [data("Double", scaler)]
    (found,) = host.upscalers()
    root = tmp_path / "set"
    picture(root / "small.png", (32, 32), seed=4)
    picture(root / "large.png", (64, 64), seed=5)
    run("upscale", settings(root), upscaler=found.upscale, name=found.name)
    assert len(scaler.calls) == 1 and Image.open(root / "small.png").size == (64, 64)
    expected = noise((32, 32), 4).resize((64, 64), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(Image.open(root / "small.png")), np.asarray(expected))
    assert not np.array_equal(np.asarray(expected), np.asarray(lanczos(noise((32, 32), 4), (64, 64))))
    undo(root)
    assert Image.open(root / "small.png").size == (32, 32) and names(root) >= {"large.png"}
    assert not drafted("upscale", settings(root)).problems


@pytest.fixture
def real(host):
    """Return the real WebUI's `shared`, its list of upscalers filled."""
    if not REAL:
        pytest.skip("needs the real WebUI's own upscalers")
    from modules import modelloader, shared

    modelloader.load_upscalers()
    return shared


def test_the_real_webui_s_list_and_one_of_its_upscalers(real, host):
    listed = {each.name: each for each in host.upscalers()}
    assert set(listed) == {each.name for each in real.sd_upscalers} - {"None", "Lanczos"}
    image = noise((9, 7), 1)
    made = listed["Nearest"].upscale(image, (18, 14))
    assert np.array_equal(np.asarray(made)[::2, ::2], np.asarray(image))
    assert real.state.job == "" and not real.state.interrupted


def test_a_model_of_the_real_webui_does_what_it_does_in_the_extras_tab(real, host, monkeypatch, tmp_path):
    from modules import shared
    from modules.esrgan_model import UpscalerESRGAN
    from modules.upscaler import UpscalerData
    from spandrel.architectures.ESRGAN import RRDBNet

    torch.manual_seed(0)
    file = tmp_path / "tiny.pth"
    torch.save(RRDBNet(num_filters=8, num_blocks=1, scale=2).state_dict(), file)
    scaler = UpscalerESRGAN(str(tmp_path))
    entry = UpscalerData("tiny", str(file), scaler, 2)
    monkeypatch.setattr(shared, "sd_upscalers", [entry])
    (found,) = host.upscalers()
    image = noise((24, 16), 2)
    before = dict(vars(scaler))
    made = found.upscale(image, (40, 30))
    assert made.size == (48, 32) and vars(scaler) == before
    assert made.tobytes() == scaler.do_upscale(image, str(file)).tobytes() != lanczos(image, (48, 32)).tobytes()
    file.write_bytes(b"no model")  # the WebUI reports it in its console and goes on
    with pytest.raises(DataError, match="tiny: gave a picture of 24×16 pixels back"):
        found.upscale(image, (40, 30))
