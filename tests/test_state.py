"""Saved runs: everything comes back bit for bit, and what belongs to another run is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from least_squares import LAYERS, build, make_adapters, make_config, same, take, values
from lib_lora_trainer.base.errors import ConfigError, RunConflict
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.optimizer import OPTIMIZERS, OptimizerConfig
from lib_lora_trainer.config.output import SampleConfig, SaveConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.train import average, lr, optim, optimizer_state, state
from lib_lora_trainer.train.state import Live, Position

STEPS = 12
START = Position(0, 0, 0, 0.0, 0.0, ())


class Scaler:
    """A gradient scaler's memory, which torch keeps on CUDA devices alone."""

    def __init__(self, scale: float = 65536.0) -> None:
        self.values = {"scale": scale, "growth_factor": 2.0, "_growth_tracker": 7}

    def state_dict(self) -> dict[str, float]:
        return dict(self.values)

    def load_state_dict(self, values: dict[str, float]) -> None:
        self.values = values


def begin(config: OptimizerConfig, **rates: float) -> Live:
    adapters = make_adapters()
    return Live(adapters, build(adapters, config, **rates), Scaler(), average.start(adapters))


def go(live: Live, config: OptimizerConfig, position: Position, until: int) -> Position:
    """Train to a step as a run does: a schedule, text encoders frozen for the last third, EMA, averages shown."""
    for step in range(position.step, until):
        factor = lr.factor(config, (step + 0.5) / STEPS, STEPS)
        optim.set_rates(live.optimizer, factor, 1.0 if step < STEPS * 2 / 3 else 0.0)
        loss = take(live.adapters, live.optimizer, step)
        average.update(live.averages, live.adapters, 0.9)
        if step % 3 == 0:
            with optim.evaluated(live.optimizer):
                pass
        files = (*position.files, f"{step + 1}.safetensors")
        position = Position(step + 1, 4 * (step + 1), 1 + step // 5, loss, position.seconds + 1.5, files)
    return position


def memory(live: Live) -> dict[str, object]:
    """Return what the optimizer remembers, by the place of the parameter or the name of the group."""
    owners = optim.parameters(live.optimizer)
    found: dict[str, object] = {
        f"{index}/{key}": value
        for index, owner in enumerate(owners)
        for key, value in live.optimizer.state[owner].items()
    }
    for group in live.optimizer.param_groups:
        found |= {f"{group['name']}/{key}": value for key, value in group.items() if key != "params"}
    return found


def identical(one: object, two: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return same([one], [two]) and one.device == two.device
    return type(one) is type(two) and (one == two)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(name, tmp_path):
    config = replace(make_config(name), schedule="constant" if "free" in name else "cosine", warmup=2.0)
    whole = begin(config, middle_block=1.0 if name in optim.SELF_TUNED else 0.5)
    end = go(whole, config, START, STEPS)
    position, path = START, tmp_path / "state.safetensors"
    for until in (3, 5, 9, STEPS):  # with and without frozen text encoders
        part = begin(config, middle_block=1.0 if name in optim.SELF_TUNED else 0.5)
        if position.step:
            for parameter in optim.parameters(part.optimizer):
                parameter.data.add_(1)  # so that the state has to bring the weights
            assert state.load(path, part, belongs()) == position
        position = go(part, config, position, until)
        part.scaler.values["scale"] = 2.0 ** (20 + until)
        state.save(path, part, position, belongs())
    assert position == end
    assert same(values(part.adapters), values(whole.adapters))
    assert same(list(part.averages.values()), list(whole.averages.values()))
    one, two = memory(whole), memory(part)
    assert set(one) == set(two)
    assert [key for key in one if not identical(one[key], two[key])] == []
    assert any(isinstance(value, torch.Tensor) for value in one.values())
    last = begin(config, middle_block=1.0 if name in optim.SELF_TUNED else 0.5)
    state.load(path, last, belongs())
    assert last.scaler.values == {"scale": 2.0 ** (20 + STEPS), "growth_factor": 2.0, "_growth_tracker": 7}


def belongs(config: RunConfig | None = None, dataset: str = "pictures", model: str = "base") -> str:
    return state.fingerprint(config or RunConfig(), dataset, model)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_the_optimizer_s_memory_a_run_goes_elsewhere(name, tmp_path):
    """What the test above compares would be equal, too, if the memory did not matter."""
    config = make_config(name)
    live = begin(config)
    position = go(live, config, START, 40)  # D-Adapt Lion's memory is too small to turn a sign before
    fresh = begin(config)
    with torch.no_grad():
        for mine, theirs in zip(optim.parameters(fresh.optimizer), optim.parameters(live.optimizer), strict=True):
            mine.copy_(theirs)
    go(live, config, position, 60)
    go(fresh, config, position, 60)
    assert not same(values(live.adapters), values(fresh.adapters))


def test_eight_bits_and_bfloat16_stay_what_they_are(tmp_path):
    for name, key, dtype in (
        ("schedulefree-prodigy", "s", torch.bfloat16),
        ("adamw8bit", "state1", torch.uint8),
        ("lion8bit", "state1", torch.uint8),
    ):
        live = begin(make_config(name))
        go(live, make_config(name), START, 2)
        state.save(tmp_path / "state", live, START, belongs())
        fresh = begin(make_config(name))
        state.load(tmp_path / "state", fresh, belongs())
        assert {fresh.optimizer.state[owner][key].dtype for owner in optim.parameters(fresh.optimizer)} == {dtype}


def test_steps_are_counted_where_torch_counts_them():
    """On the CPU, unless one kernel does the whole step; everything else lies beside its parameter."""
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    places = [optimizer_state.place(key, group, gpu) for key, group in (("step", {}), ("step", {"fused": None}))]
    assert places == [cpu, cpu]
    assert optimizer_state.place("step", {"fused": True}, gpu) == gpu
    assert optimizer_state.place("step", {"capturable": True}, gpu) == gpu
    assert optimizer_state.place("exp_avg", {}, gpu) == gpu


def test_step_counts_accumulate_over_repeated_resumes(tmp_path):
    """Each part counts on from the run's first step: sd-scripts' own count begins anew at a second resume."""
    config, path, position = make_config("adamw"), tmp_path / "state", START
    for until in (4, 7, 11):
        live = begin(config)
        if position.step:
            position = state.load(path, live, belongs())
        position = go(live, config, position, until)
        state.save(path, live, position, belongs())
        assert (position.step, position.images_seen, position.seconds) == (until, 4 * until, 1.5 * until)
        assert len(position.files) == until
    counted = {key: int(value) for key, value in memory(live).items() if key.endswith("/step")}
    # Text encoders are frozen from step 9 on.
    assert counted == {"0/step": 11, "1/step": 11, "2/step": 11, "3/step": 11, "4/step": 8, "5/step": 8}


def test_a_state_before_the_first_step_comes_back(tmp_path):
    config = make_config("prodigy")
    live = begin(config)
    state.save(tmp_path / "state", live, START, belongs())
    fresh = begin(config)
    assert state.load(tmp_path / "state", fresh, belongs()) == START
    assert go(fresh, config, START, 3) == go(begin(config), config, START, 3)


def run_config(**changes: object) -> RunConfig:
    sources = (SourceConfig("/a", repeats=2), SourceConfig("/b", repeats=3, masks="/m"))
    return replace(RunConfig(data=DataConfig(sources=sources)), **changes)


def saved(tmp_path: Path) -> tuple[Path, Live]:
    config = make_config("adamw")
    live = begin(config)
    position = go(live, config, START, 2)
    state.save(tmp_path / "state", live, position, belongs(run_config()))
    return tmp_path / "state", live


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"optimizer": OptimizerConfig(unet_learning_rate=2e-4)},
            "optimizer.unet_learning_rate was 0.0001 and is 0.0002",
        ),
        ({"optimizer": OptimizerConfig(beta1=0.5)}, "optimizer.beta1 was not set and is 0.5"),
        ({"optimizer": OptimizerConfig(name="lion")}, "optimizer.name was 'adamw' and is 'lion'"),
        ({"adapter": AdapterConfig(rank=4)}, "adapter.rank was 16 and is 4"),
        ({"training": TrainingConfig(ema=0.5)}, "training.ema was 0 and is 0.5"),
        (
            {"data": DataConfig(sources=(SourceConfig("/a", repeats=2), SourceConfig("/b", repeats=4)))},
            r"data.sources\[1\].repeats was 3 and is 4",
        ),
    ],
)
def test_another_run_s_state_is_refused_by_the_setting(tmp_path, change, message):
    path, live = saved(tmp_path)
    before = values(live.adapters)
    with pytest.raises(RunConflict, match=message) as error:
        state.load(path, live, belongs(run_config(**change)))
    assert "Set it back" in str(error.value) and str(path) in str(error.value)
    assert same(values(live.adapters), before)


def test_another_dataset_or_model_is_refused(tmp_path):
    path, live = saved(tmp_path)
    with pytest.raises(RunConflict, match="pictures"):
        state.load(path, live, belongs(run_config(), dataset="others"))
    with pytest.raises(RunConflict, match="made with model base, and other is loaded"):
        state.load(path, live, belongs(run_config(), model="other"))


def test_settings_that_change_no_weight_may_change(tmp_path):
    path, live = saved(tmp_path)
    sources = (SourceConfig("/moved", repeats=2), SourceConfig("/b", repeats=3, masks="/elsewhere"))
    changed = run_config(
        name="other",
        comment="new",
        triggers=("word",),
        data=DataConfig(sources=sources, cache="disk"),
        save=SaveConfig(every_epochs=7, tensorboard=True),
        samples=SampleConfig(prompts=("a",)),
        training=TrainingConfig(offload=False, gradient_checkpointing=True),
    )
    assert state.load(path, live, belongs(changed)).step == 2


def test_a_setting_of_a_later_version_counts_with_its_default(tmp_path):
    config = make_config("adamw")
    live = begin(config)
    old = json.loads(belongs(run_config()))
    del old["settings"]["optimizer"]["power"], old["settings"]["noise"]
    state.save(tmp_path / "state", live, START, json.dumps(old))
    assert state.load(tmp_path / "state", live, belongs(run_config())) == START
    steeper = run_config(optimizer=OptimizerConfig(power=2.0))
    with pytest.raises(RunConflict, match="optimizer.power was 1 and is 2"):
        state.load(tmp_path / "state", live, belongs(steeper))


def test_states_of_another_layout_are_refused_in_a_sentence(tmp_path):
    path, live = saved(tmp_path)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    del metadata["format"]  # the first layout had none
    save_file(tensors, str(path), metadata)
    with pytest.raises(RunConflict, match=r"format 1 instead of 2.*start_from"):
        state.load(path, live, belongs(run_config()))
    path.write_bytes(b"\0" * 100)
    with pytest.raises(RunConflict, match="cannot be read"):
        state.load(path, live, belongs(run_config()))


def test_other_parameters_or_groups_are_refused(tmp_path):
    config = make_config("adamw")
    live = begin(config)
    go(live, config, START, 2)
    state.save(tmp_path / "state", live, START, belongs())
    with pytest.raises(RunConflict, match="unet ×0.5"):
        state.load(tmp_path / "state", begin(config, middle_block=0.5), belongs())
    smaller = begin(config)
    smaller.adapters[LAYERS[0]].up = torch.nn.Parameter(torch.zeros(3, 3))
    with pytest.raises(RunConflict, match="proj_in/up, which is .3, 3. now"):
        state.load(tmp_path / "state", smaller, belongs())


def test_a_failed_save_leaves_the_old_state(tmp_path):
    path, live = saved(tmp_path)
    before = path.read_bytes()
    live.optimizer.state[optim.parameters(live.optimizer)[0]]["odd"] = object()
    with pytest.raises(ConfigError, match="keeps a object"):
        state.save(path, live, START, belongs(run_config()))
    live.optimizer.state.clear()
    live.optimizer.state["all"] = {"count": 1}
    with pytest.raises(ConfigError, match="belongs to no parameter"):
        state.save(path, live, START, belongs(run_config()))
    assert path.read_bytes() == before


def test_every_kind_of_memory_comes_back(tmp_path):
    config = make_config("adamw")
    live = begin(config)
    kept = {
        "nothing": None,
        "yes": True,
        "whole": 2**70,
        "number": 0.1 + 0.2,
        "without_end": float("inf"),
        "text": "é",
        "pair": (1, (2.5, None)),
        "list": [torch.arange(3), [1]],
        "table": {"tensor": torch.ones(2, dtype=torch.float16).t(), "tuple": 3},
        "scalar": torch.tensor(5, dtype=torch.int64),
        "turned": torch.arange(6.0).view(2, 3).t(),
    }
    owner = optim.parameters(live.optimizer)[0]
    live.optimizer.state[owner] = kept
    live.optimizer.param_groups[0]["more"] = {"a": (torch.zeros(()), 1)}
    state.save(tmp_path / "state", live, START, belongs())
    fresh = begin(config)
    state.load(tmp_path / "state", fresh, belongs())
    found = fresh.optimizer.state[optim.parameters(fresh.optimizer)[0]]
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in kept.items()}
    for key in ("nothing", "yes", "whole", "number", "without_end", "text", "pair", "scalar", "turned"):
        assert identical(found[key], kept[key]), key
    assert found["list"][0].tolist() == [0, 1, 2] and found["list"][1] == [1]
    assert found["table"]["tensor"].dtype == torch.float16 and found["table"]["tuple"] == 3
    more = fresh.optimizer.param_groups[0]["more"]["a"]
    assert isinstance(more, tuple) and more[0].shape == () and more[1] == 1
