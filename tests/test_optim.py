"""Optimizers: groups and rates, their steps by hand, freezing, averages, and the settings that are refused."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from least_squares import LAYERS, build, loss, make_adapters, make_config, same, take, ups, values
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.optimizer import OPTIMIZERS, OptimizerConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.train import optim, optimizer_arguments, optimizer_rules, optimizers

SCHEDULE_FREE = sorted(optimizers.SCHEDULE_FREE)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name):
    adapters = make_adapters()
    optimizer = build(adapters, make_config(name))
    before = loss(adapters, 999).item()
    for step in range(250):
        optim.set_rates(optimizer, 1.0)
        take(adapters, optimizer, step)
    with optim.evaluated(optimizer):
        assert loss(adapters, 999).item() < 0.6 * before


def test_groups_are_parts_factors_and_up_factors():
    config = make_config("adamw", unet_learning_rate=1e-4, text_learning_rate=5e-5, lora_plus_ratio=16.0)
    adapters = make_adapters()
    optimizer = build(adapters, config, middle_block=0.5)
    groups = {group["name"]: group for group in optimizer.param_groups}
    bases = {name: group["base"] for name, group in groups.items()}
    assert bases == {
        "unet": 1e-4,
        "unet up": pytest.approx(1.6e-3),
        "unet ×0.5": 5e-5,
        "unet ×0.5 up": pytest.approx(8e-4),
        "text": 5e-5,
        "text up": pytest.approx(8e-4),
    }
    assert [name.split()[0] for name in groups] == ["unet"] * 4 + ["text"] * 2
    first, text, middle = (adapters[layer] for layer in LAYERS)
    assert groups["unet ×0.5 up"]["params"] == [middle.up] and groups["unet"]["params"] == [first.down]
    assert groups["text"]["params"] == [text.down]
    assert len(optim.parameters(optimizer)) == 6


def test_a_layer_with_rate_0_is_left_alone():
    adapters = make_adapters()
    optimizer = build(adapters, make_config("prodigy"), middle_block=0.0)
    middle, before = adapters[LAYERS[2]], values(adapters)
    for step in range(3):
        optim.set_rates(optimizer, 1.0)
        take(adapters, optimizer, step)
    assert [group["name"] for group in optimizer.param_groups] == ["unet", "text"]
    assert not middle.up.requires_grad and middle.up.grad is None
    after = values(adapters)
    assert same(after[4:], before[4:]) and not any(
        torch.equal(*pair) for pair in zip(after[:4], before[:4], strict=True)
    )
    with pytest.raises(ConfigError, match="nothing would be trained"):
        build(make_adapters(), make_config("adamw"), input_blocks=0.0, middle_block=0.0, text_model=0.0)


def test_rates_are_base_times_factors():
    optimizer = build(make_adapters(), make_config("adamw", text_learning_rate=5e-4, lora_plus_ratio=4.0))
    expected = {"unet": 2.5e-4, "unet up": 1e-3, "text": 6.25e-5, "text up": 2.5e-4}
    assert optim.set_rates(optimizer, 0.25, 0.5) == pytest.approx(expected)
    assert optim.effective_rates(optimizer) == pytest.approx(expected)
    assert optim.set_rates(optimizer, 1.0)["text"] == 5e-4  # from the base, not from the rate before


def test_self_tuned_rates_are_their_estimate_times_the_rate():
    optimizer = build(make_adapters(), make_config("prodigy", d0=1e-5))
    optim.set_rates(optimizer, 0.5)
    assert optim.effective_rates(optimizer) == {"unet": 5e-6, "text": 5e-6}
    adapters = make_adapters()
    optimizer = build(adapters, make_config("schedulefree-prodigy", arguments=("split_groups_mean=true",)))
    for step in range(80):
        optim.set_rates(optimizer, 1.0)
        take(adapters, optimizer, step)
    one, two = (group["d"] for group in optimizer.param_groups)
    mean = 2 / (1 / one + 1 / two)  # split_groups_mean: the harmonic mean of the groups' estimates serves both
    assert one != two and optim.effective_rates(optimizer) == pytest.approx({"unet": mean, "text": mean})


def first_step(name: str, **changes: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return weight, gradient and new weight of one matrix whose gradient has rank 1."""
    adapters = make_adapters()
    optimizer = build(adapters, make_config(name, **changes))
    down = adapters[LAYERS[0]].down
    before = down.detach().double()
    rows = torch.linspace(0.5, 2, down.shape[0]).unsqueeze(1)
    columns = torch.linspace(-1, 1.01, down.shape[1]).unsqueeze(0)
    down.grad = rows @ columns
    gradient = down.grad.double().clone()
    optim.set_rates(optimizer, 1.0)
    optimizer.step()
    return before, gradient, down.detach().double()


def test_first_steps_are_those_worked_by_hand():
    # AdamW: both moments' corrected estimates are g and g², so the step is lr · g / (|g| + eps); decay lr · 0.01.
    before, gradient, after = first_step("adamw", unet_learning_rate=0.1)
    hand = before * (1 - 0.1 * 0.01) - 0.1 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(after, hand, atol=1e-6, rtol=0)
    # Lion: the sign of the gradient; decay only where it is set.
    before, gradient, after = first_step("lion", unet_learning_rate=0.1, weight_decay=0.5)
    torch.testing.assert_close(after, before * (1 - 0.1 * 0.5) - 0.1 * gradient.sign(), atol=1e-6, rtol=0)
    # Adafactor: a gradient of rank 1 is its own factored estimate, so the step is lr · sign(g), clipped to RMS 1: the
    # learning rate counts as it is, whatever the size of the weights.
    before, gradient, after = first_step("adafactor", unet_learning_rate=0.1)
    torch.testing.assert_close(after, before - 0.1 * gradient.sign(), atol=1e-5, rtol=0)
    # Prodigy with use_bias_correction: d0 · lr · sign(g), decay decoupled: · sqrt(1 - beta2) / (1 - beta1).
    before, gradient, after = first_step("prodigy", d0=1e-2)
    bias = math.sqrt(1 - 0.999) / (1 - 0.9)
    hand = before * (1 - 0.01 * 1e-2 * bias) - 1e-2 * gradient.sign()
    torch.testing.assert_close(after, hand, atol=1e-5, rtol=0)
    # D-Adapt Lion: d0 · lr · sign(g).
    before, gradient, after = first_step("dadapt-lion", d0=1e-2)
    torch.testing.assert_close(after, before - 1e-2 * gradient.sign(), atol=1e-6, rtol=0)


def test_defaults_are_what_the_classes_get():
    for name in (name for name in OPTIMIZERS if name != "custom"):
        group = build(make_adapters(), make_config(name)).param_groups[0] if usable(name) else None
        usual = optim.defaults(name)
        if group is None:
            continue
        assert group["weight_decay"] == usual["weight_decay"]
        if name == "adafactor":
            assert group["beta1"] is usual["beta1"] is None and group["eps"] == (usual["epsilon"], 1e-3)
            continue
        assert tuple(group["betas"]) == (usual["beta1"], usual["beta2"])
        for field, argument in (("d0", "d"), ("d_coefficient", "d_coef"), ("growth_rate", "growth_rate")):
            assert group.get(argument) == usual.get(field) or field not in usual
    assert optim.defaults("prodigy")["d_coefficient"] == 2.0 and optim.defaults("custom") == {}
    assert optim.defaults("dadapt-lion") == {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "d0": 1e-6}


def usable(name: str) -> bool:
    found = optimizers.locate(OptimizerConfig(name=name))
    return isinstance(found, type) and not (name in optimizers.EIGHT_BIT and optimizers.old_bitsandbytes())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_text_encoders_do_not_move(name):
    adapters = make_adapters()
    optimizer = build(adapters, make_config(name, weight_decay=0.1))
    start = values(adapters, "text")
    for step in range(12):
        rates = optim.set_rates(optimizer, 1.0, 0.0 if step < 3 or step >= 6 else 1.0)
        before = values(adapters)
        take(adapters, optimizer, step)
        assert not same(values(adapters, "unet"), before[:2] + before[4:])
        assert same(values(adapters, "text"), before[2:4]) == (rates["text"] == 0.0)
    with optim.evaluated(optimizer):
        assert not same(values(adapters, "text"), start)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_without_gradient_do_not_move(name):
    adapters = make_adapters()
    optimizer = build(adapters, make_config(name))
    for step in range(4):
        optim.set_rates(optimizer, 1.0)
        before = values(adapters, "text")
        loss(adapters, step).backward()
        if step >= 2:
            for parameter in adapters[LAYERS[1]].parameters():
                parameter.grad = None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert same(values(adapters, "text"), before) == (step >= 2)


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_the_average_is_the_weighted_mean_of_the_fast_weights(name):
    """Defazio et al. 2024, arXiv:2405.15682: x is the mean of all z, weighted by the squared learning rates."""
    adapters = make_adapters()
    optimizer = build(adapters, make_config(name, lora_plus_ratio=0.0))
    down = adapters[LAYERS[0]].down
    total, weight_sum = torch.zeros_like(down).double(), 0.0
    for step in range(40):
        optim.set_rates(optimizer, 1.0)
        weight = optim.effective_rates(optimizer)["unet"] ** 2
        take(adapters, optimizer, step)
        total += weight * optimizer.state[down]["z"].double()
        weight_sum += weight
    trained = down.detach().clone()
    with optim.evaluated(optimizer):
        torch.testing.assert_close(down.detach().double(), total / weight_sum, atol=1e-5, rtol=1e-4)
        assert not torch.equal(down, trained)
        with optim.evaluated(optimizer):
            torch.testing.assert_close(down.detach().double(), total / weight_sum, atol=1e-5, rtol=1e-4)
    assert torch.equal(down, trained)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_showing_the_average_changes_nothing(name):
    shown, plain = make_adapters(), make_adapters()
    one, two = build(shown, make_config(name)), build(plain, make_config(name))
    for step in range(15):
        before = values(shown)
        with optim.evaluated(one):
            pass
        assert same(values(shown), before)
        with pytest.raises(ZeroDivisionError), optim.evaluated(one):
            raise ZeroDivisionError
        for adapters, optimizer in ((shown, one), (plain, two)):
            optim.set_rates(optimizer, 1.0)
            take(adapters, optimizer, step)
    assert same(values(shown), values(plain))


def test_the_library_s_own_way_back_from_the_average_is_not_exact():
    adapters = make_adapters()
    optimizer = build(adapters, make_config("schedulefree-adamw"))
    for step in range(15):
        optim.set_rates(optimizer, 1.0)
        take(adapters, optimizer, step)
    before = values(adapters)
    optimizer.eval()
    optimizer.train()
    assert not same(values(adapters), before)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("1e-6", 1e-6),
        ("0.9,0.99", (0.9, 0.99)),
        ("(0.9, 0.99)", (0.9, 0.99)),
        ("True", True),
        ("false", False),
        ("None", None),
        ("none", None),
        ("inf", math.inf),
        ("-0.8", -0.8),
        ("'a b'", "a b"),
        ("word", "word"),
        ("a=b", "a=b"),
    ],
)
def test_arguments_are_typed(text, value):
    parsed = optimizer_arguments.parse(text)
    assert parsed == value and type(parsed) is type(value)


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()))
def test_numbers_come_back_as_they_were_written(value):
    assert optimizer_arguments.parse(repr(value)) == value


def test_lines_replace_defaults_and_reach_the_class():
    config = make_config("prodigy", arguments=("betas=0.8,0.95", " d_coef = 0.5", "", "safeguard_warmup=false"))
    group = build(make_adapters(), config).param_groups[0]
    assert group["betas"] == (0.8, 0.95) and group["d_coef"] == 0.5
    assert group["safeguard_warmup"] is False and group["use_bias_correction"] is True
    group = build(make_adapters(), make_config("adamw", beta2=0.99)).param_groups[0]
    assert group["betas"] == (0.9, 0.99)
    config = make_config("custom", custom_class="torch.optim.Adam", arguments=(), beta1=0.5, epsilon=1e-4)
    group = build(make_adapters(), config).param_groups[0]
    assert group["betas"] == (0.5, 0.999) and group["eps"] == 1e-4
    assert isinstance(build(make_adapters(), make_config("custom", custom_class="SGD")), torch.optim.SGD)
    config = make_config("adafactor", arguments=("relative_step=True", "scale_parameter=True"))
    assert build(make_adapters(), config).param_groups[0]["relative_step"] is True
    config = make_config("adafactor", epsilon=1e-20, beta1=0.9)
    group = build(make_adapters(), config).param_groups[0]
    assert group["eps"] == (1e-20, 1e-3) and group["beta1"] == 0.9


def run_config(name: str, **changes: object) -> RunConfig:
    """Return a run whose optimizer has nothing to complain about; changes by part__field."""
    rate = {"lion": 1e-5, "lion8bit": 1e-5, "schedulefree-adamw": 1e-3}.get(name, 1e-4)
    rate = 1.0 if name in optim.SELF_TUNED else rate
    parts: dict[str, dict[str, object]] = {"optimizer": {}, "adapter": {}, "training": {}}
    for path, value in changes.items():
        part, _, field = path.partition("__")
        parts[part][field] = value
    usual: dict[str, object] = {"unet_learning_rate": rate, "text_learning_rate": rate, "gradient_clip": 0.0}
    if name in optimizers.SCHEDULE_FREE:
        usual["schedule"] = "constant"
    if name == "custom":
        usual["custom_class"] = "torch.optim.SGD"
    return RunConfig(
        optimizer=OptimizerConfig(name=name, **{**usual, **parts["optimizer"]}),
        adapter=AdapterConfig(**parts["adapter"]),
        training=TrainingConfig(**parts["training"]),
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_usual_settings_have_no_problem(name):
    assert optim.problems(run_config(name), "cuda", (1.0, 0.0)) == ()


@pytest.mark.parametrize(
    ("name", "changes", "severity", "where", "text"),
    [
        (
            "dadapt-adam",
            {"optimizer__unet_learning_rate": 1e-4, "adapter__text_encoder": False},
            "warning",
            "unet_learning_rate",
            "finds the learning rate",
        ),
        ("prodigy", {"optimizer__text_learning_rate": 0.5}, "error", "text_learning_rate", "1 and 0.5"),
        ("dadapt-lion", {"optimizer__lora_plus_ratio": 16.0}, "error", "lora_plus_ratio", "impossible"),
        ("schedulefree-prodigy", {"optimizer__lora_plus_ratio": 16.0}, "warning", "lora_plus_ratio", "LoRA+"),
        ("prodigy", {"adapter__scale_weight_norms": 1.0}, "error", "adapter.scale_weight_norms", "how far"),
        (
            "schedulefree-prodigy",
            {"adapter__scale_weight_norms": 1.0},
            "error",
            "adapter.scale_weight_norms",
            "how far",
        ),
        ("schedulefree-adamw", {"adapter__scale_weight_norms": 1.0}, "error", "adapter.scale_weight_norms", "average"),
        ("schedulefree-adamw", {"optimizer__schedule": "cosine"}, "warning", "optimizer.schedule", "averages"),
        ("schedulefree-adamw", {"training__ema": 0.99}, "warning", "training.ema", "already"),
        ("schedulefree-adamw", {"optimizer__beta1": 0.0}, "error", "optimizer.beta1", "divides"),
        ("schedulefree-prodigy", {"optimizer__gradient_clip": 1.0}, "note", "gradient_clip", "limits"),
        ("adamw", {"optimizer__unet_learning_rate": 1e-2}, "warning", "unet_learning_rate", "very high for adamw"),
        ("lion", {"optimizer__unet_learning_rate": 1e-3}, "warning", "unet_learning_rate", "very high for lion"),
        ("adamw", {"optimizer__d0": 1e-5}, "error", "optimizer.d0", "no such setting"),
        ("lion", {"optimizer__epsilon": 1e-5}, "error", "optimizer.epsilon", "no such setting"),
        ("adamw", {"optimizer__arguments": ("beta=1",)}, "error", "arguments[0]", "beta is not an argument of AdamW"),
        ("adamw", {"optimizer__arguments": ("eps",)}, "error", "arguments[0]", "'eps' is not an argument"),
        ("adamw", {"optimizer__arguments": ("eps=1", "eps=2")}, "error", "arguments[1]", "twice"),
        ("adamw", {"optimizer__arguments": ("lr=1",)}, "error", "arguments[0]", "cannot be set here"),
        ("adamw", {"optimizer__arguments": ("eps=-1",)}, "error", "optimizer.arguments", "refuses its arguments"),
        ("adamw", {"optimizer__arguments": ("betas=0.9,2.0",)}, "error", "optimizer.arguments", "ValueError"),
        ("adamw", {"optimizer__arguments": ("eps=1e-6",), "optimizer__epsilon": 1e-7}, "error", "arguments", "and by"),
        ("adafactor", {"optimizer__arguments": ("relative_step=True",)}, "warning", "arguments", "no effect"),
        ("custom", {"optimizer__custom_class": ""}, "error", "custom_class", "is empty"),
        ("custom", {"optimizer__custom_class": "no.such.Class"}, "error", "custom_class", "cannot be imported"),
        ("custom", {"optimizer__custom_class": "torch.optim.Missing"}, "error", "custom_class", "AttributeError"),
        ("custom", {"optimizer__custom_class": "math.sqrt"}, "error", "custom_class", "not a torch optimizer"),
        ("custom", {"optimizer__custom_class": "torch.optim.LBFGS"}, "error", "custom_class", "several times"),
        ("custom", {"optimizer__beta1": 0.5}, "error", "optimizer.beta1", "no such setting"),
        ("adamw", {"optimizer__custom_class": "torch.optim.SGD"}, "warning", "custom_class", "no effect"),
        (
            "adamw",
            {"adapter__unet": False, "training__text_encoder_until": 0.5},
            "error",
            "training.text_encoder_until",
            "do nothing",
        ),
    ],
)
def test_rules(name, changes, severity, where, text):
    found = optim.problems(run_config(name, **changes), "cuda")
    matching = [problem for problem in found if problem.where.endswith(where) and text in problem.message]
    assert len(matching) == 1, found
    assert matching[0].severity == severity and matching[0].fix.endswith(".")
    assert len([problem for problem in found if problem.severity == "error"]) == (severity == "error")


def test_more_rules():
    assert optim.problems(run_config("adamw", optimizer__unet_learning_rate=1e-2, adapter__method="ia3")) == ()
    assert optim.problems(run_config("prodigy", optimizer__unet_learning_rate=math.nan)) == ()  # the codec's business
    half = optim.problems(run_config("prodigy"), rates=(1.0, 0.5))
    assert [(problem.severity, problem.where) for problem in half] == [("error", "adapter.rules")]
    assert optim.problems(run_config("adamw"), rates=(1.0, 0.5)) == ()
    only_unet = run_config("prodigy", optimizer__text_learning_rate=5e-5, adapter__text_encoder=False)
    assert optim.problems(only_unet) == ()
    near = optim.problems(run_config("adamw", optimizer__arguments=("weight_deca=1",)))
    assert "Did you mean weight_decay?" in near[0].fix and "foreach" in near[0].fix and "params" not in near[0].fix


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "lion_pytorch", None)
    (problem,) = optim.problems(run_config("lion"))
    assert problem.severity == "error" and "lion-pytorch, which is not installed" in problem.message
    assert f'"{sys.executable}" -m pip install lion-pytorch==0.2.5' in problem.fix
    with pytest.raises(ConfigError, match="pip install lion-pytorch"):
        optim.build(make_adapters(), dict.fromkeys(LAYERS, 1.0), ups, make_config("lion"))


def test_a_package_that_lacks_the_class_is_named(monkeypatch):
    dadaptation = pytest.importorskip("dadaptation")
    monkeypatch.delattr(dadaptation, "DAdaptLion")
    (problem,) = optim.problems(run_config("dadapt-lion"))
    assert "dadaptation 3.2 does not provide" in problem.message and "dadaptation==3.2" in problem.fix


def test_eight_bits_on_a_cpu_need_a_new_bitsandbytes(monkeypatch):
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(optimizer_rules, "old_bitsandbytes", lambda: "0.45.5")
    (problem,) = optim.problems(run_config("adamw8bit"), "cpu")
    assert problem.severity == "error" and "0.45.5" in problem.message and problem.fix == "Choose adamw."
    assert optim.problems(run_config("adamw8bit"), "cuda") == ()
    monkeypatch.setattr(optimizer_rules, "old_bitsandbytes", lambda: "")
    assert optim.problems(run_config("adamw8bit"), "cpu") == ()


def test_what_the_plan_refuses_does_not_build():
    config = make_config("prodigy", text_learning_rate=0.5)
    with pytest.raises(ConfigError, match="unet 1, text 0.5"):
        build(make_adapters(), config)
    with pytest.raises(ProblemsFound, match="not an argument"):
        build(make_adapters(), make_config("adamw", arguments=("x=1",)))
    with pytest.raises(ConfigError, match="refuses its arguments"):
        build(make_adapters(), replace(make_config("adamw"), arguments=("betas=3,4",)))
