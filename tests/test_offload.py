"""Parts leave the device when they are idle and come back for use; the moves are recorded, for there is one device."""

from __future__ import annotations

import pytest
import torch

from lib_lora_trainer.hosts.offload import MAIN_MEMORY, Offload, move, slots

HOME = torch.device("cuda:0")


class Part(torch.nn.Module):
    """A network whose parameter and buffer only say where they are."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("mask", torch.zeros(1))
        self.place = place


class Recorder:
    """Pretends that tensors are on a device, and writes down each move."""

    def __init__(self, monkeypatch, parts: dict[str, Part]) -> None:
        self.names = {id(getattr(part, name)): key for key, part in parts.items() for name in ("weight", "mask")}
        self.moves: list[tuple[str, str]] = []
        self.refreshed = 0

    def move(self, tensor: torch.Tensor, device: torch.device) -> None:
        entry = (self.names[id(tensor)], device.type)
        if not self.moves or self.moves[-1] != entry:
            self.moves.append(entry)

    def moved(self) -> None:
        self.refreshed += 1


@pytest.fixture
def parts() -> dict[str, Part]:
    return {"vae": Part("vae"), "text": Part("text")}


@pytest.fixture
def recorder(monkeypatch, parts) -> Recorder:
    return Recorder(monkeypatch, parts)


@pytest.fixture
def offload(parts, recorder):
    with Offload({name: [part] for name, part in parts.items()}, True, recorder.moved, recorder.move) as made:
        for part, homes in made._homes.items():
            made._homes[part] = [(module, name, HOME) for module, name, _ in homes]
        yield made


AWAY, BACK = MAIN_MEMORY.type, HOME.type


def test_idle_parts_leave_once_and_come_back_when_they_are_used(offload, recorder):
    offload.use("vae", "text")
    assert recorder.moves == []
    offload.idle("vae")
    offload.idle("vae")
    assert recorder.moves == [("vae", AWAY)]
    offload.idle("vae", "text")
    assert recorder.moves == [("vae", AWAY), ("text", AWAY)]
    offload.use("text")
    offload.use("text")
    assert recorder.moves == [("vae", AWAY), ("text", AWAY), ("text", BACK)]
    assert recorder.refreshed == 3
    offload.idle("text")
    assert recorder.moves[3:] == [("text", AWAY)], "the VAE stays away until it is used"
    offload.use("vae")
    assert recorder.moves[4:] == [("vae", BACK)]


def test_what_is_lent_goes_away_again_if_it_is_idle(offload, recorder):
    offload.idle("vae")
    with pytest.raises(ZeroDivisionError), offload.lent("vae", "text"):
        assert recorder.moves == [("vae", AWAY), ("vae", BACK)]
        raise ZeroDivisionError
    assert recorder.moves[2:] == [("vae", AWAY)]
    offload.idle()
    with offload.lent("vae", "text"):
        pass
    assert recorder.moves[3:] == [("vae", BACK)], "nothing is idle any more"


def test_everything_is_back_at_the_end(parts, recorder):
    with Offload({name: [part] for name, part in parts.items()}, True, move=recorder.move) as offload:
        offload.idle("text", "vae")
        recorder.moves.clear()
    assert sorted(name for name, _ in recorder.moves) == ["text", "vae"]
    offload.use("vae")
    assert len(recorder.moves) == 2


def test_nothing_moves_where_nothing_has_to(parts, recorder):
    with Offload({name: [part] for name, part in parts.items()}, False, recorder.moved, recorder.move) as offload:
        offload.idle("vae", "text")
        offload.use("vae")
        with offload.lent("text"):
            pass
    assert (recorder.moves, recorder.refreshed) == ([], 0)


def test_only_what_is_elsewhere_is_moved_and_nothing_that_was_unloaded():
    part, unloaded = Part("x").requires_grad_(False), torch.zeros(1, device="meta")
    assert [name for _, name in slots(part)] == ["weight", "mask"]
    pointer, weight = part.weight.data_ptr(), part.weight
    move(part.weight, torch.device("cpu"))
    assert part.weight is weight and weight.data_ptr() == pointer
    move(unloaded, torch.device("cpu"))
    assert unloaded.is_meta
