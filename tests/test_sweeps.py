"""Sweeps: what is varied, what the runs are called, and what is said when a line is wrong."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.app import projects, sweeps
from lib_lora_trainer.base import codec, files
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.config.paths import flat
from lib_lora_trainer.config.run import RunConfig

LR, RANK = "optimizer.unet_learning_rate", "adapter.rank"


def expanded(*lines: str, name: str = "mikori") -> list[RunConfig]:
    return list(sweeps.expand(RunConfig(name=name), sweeps.parse(lines)))


def mistakes(*lines: str) -> list[str]:
    with pytest.raises(ProblemsFound) as caught:
        sweeps.parse(lines)
    return [str(problem) for problem in caught.value.problems]


def test_values_have_the_types_of_their_settings():
    lines = [
        f"{LR}: 1e-4, 2e-4 ,5e-05",
        "",
        f" {RANK} ： 8,16",
        "data.flip: true, off",
        "adapter.alpha: 4",
        "optimizer.name: adamw, lion",
        "optimizer.weight_decay: none, 0.1",
        'adapter.blocks: "IN04-07,MID", OUT03-06, ""',
        'adapter.rules: [], ["IN04: off", "/a\\\\.b[,]/: rank=4"], "MID: off"',
        "triggers: [one, two], three",
    ]
    sweep = sweeps.parse(lines)
    assert sweep == {
        LR: (1e-4, 2e-4, 5e-5),
        RANK: (8, 16),
        "data.flip": (True, False),
        "adapter.alpha": (4.0,),
        "optimizer.name": ("adamw", "lion"),
        "optimizer.weight_decay": (None, 0.1),
        "adapter.blocks": ("IN04-07,MID", "OUT03-06", ""),
        "adapter.rules": ((), ("IN04: off", "/a\\.b[,]/: rank=4"), ("MID: off",)),
        "triggers": (("one", "two"), ("three",)),
    }
    assert [type(value) for value in sweep["adapter.alpha"] + sweep[RANK]] == [float, int, int]


def test_every_combination_becomes_a_run_and_differs_in_nothing_else():
    base = RunConfig(name="mikori", comment="kept")
    configs = sweeps.expand(base, {LR: [1e-4, 2e-4], RANK: [8, 16, 32]})
    seen = [(config.optimizer.unet_learning_rate, config.adapter.rank) for config in configs]
    assert seen == [(1e-4, 8), (1e-4, 16), (1e-4, 32), (2e-4, 8), (2e-4, 16), (2e-4, 32)]
    for config in configs:
        assert {difference.path for difference in projects.differences(base, config)} <= {"name", LR, RANK}
        text = codec.to_toml(config)
        assert codec.from_toml(RunConfig, text, "file") == config
    assert sweeps.expand(base, {}) == (base,)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([f"{LR}: 1e-4, 0.00025", f"{RANK}: 8"], ["mikori-lr1e-4-rank8", "mikori-lr2.5e-4-rank8"]),
        (["optimizer.name: adamw, schedulefree-adamw"], ["mikori-adamw", "mikori-schedulefree-adamw"]),
        (["adapter.dropout: 0, 0.1"], ["mikori-dropout0", "mikori-dropout0.1"]),
        (
            ["adapter.dropout: 0.1", "data.caption.dropout: 0.05"],
            ["mikori-adapter_dropout0.1-caption_dropout0.05"],
        ),
        (["data.flip: on, off"], ["mikori-flip_on", "mikori-flip_off"]),
        (["training.max_steps: 100, 1000000"], ["mikori-max_steps100", "mikori-max_steps1000000"]),
        (['adapter.blocks: "", "IN04-07,MID"'], ["mikori-blocks_none", "mikori-blocks_IN04-07_MID"]),
        (["optimizer.weight_decay: none, 0.01, 0.005"], [f"mikori-weight_decay{text}" for text in ("_none", "0.01", "5e-3")]),
        (['samples.negative: "a:b", "a/b"'], ["mikori-1", "mikori-2"]),
        (["triggers: Mikori, mikori"], ["mikori-1", "mikori-2"]),
    ],
)  # fmt: skip
def test_names_say_what_is_special(lines, names):
    assert [config.name for config in expanded(*lines)] == names


def test_names_that_would_be_too_long_are_numbered():
    fitting = "n" * (64 - len("-lr1e-4"))
    assert [config.name for config in expanded(f"{LR}: 1e-4", name=fitting)] == [f"{fitting}-lr1e-4"]
    longer = [config.name for config in expanded(f"{LR}: 1e-4, 2e-4", name=f"{fitting}n")]
    assert longer == [f"{fitting}n-1", f"{fitting}n-2"]
    many = expanded("training.seed: " + ",".join(map(str, range(120))), name="み" * 60)
    assert [config.name for config in many][::119] == ["み" * 58 + "-001", "み" * 58 + "-120"]
    assert max(len(config.name.encode()) for config in many) <= files.NAME_BYTES


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("adapter.rank 8", "'adapter.rank 8' has no colon. Write for instance adapter.rank: 8, 16."),
        ("adapter.rnak: 8", "'adapter.rnak' is not a setting. Did you mean adapter.rank?"),
        ("rank: 8", "'rank' is not a setting. Did you mean adapter.rank?"),
        ("every_epochs: 8", "Did you mean save.every_epochs or samples.every_epochs?"),
        ("zzz: 8", "'zzz' is not a setting. Settings are named as in the configuration file."),
        ("adapter: 8", "'adapter' is not a setting."),
        ("name: a, b", "name cannot be varied."),
        ("data.sources: a", "data.sources cannot be varied."),
        ("adapter.rank:", "adapter.rank has no values."),
        ("adapter.rank: , ,", "adapter.rank has no values."),
        ("adapter.rank: 8.5", "adapter.rank: '8.5' is not a whole number. Give a whole number."),
        ("adapter.rank: none", "adapter.rank: 'none' is not a whole number."),
        ("adapter.rank: 0", "adapter.rank: 0 is too small. Use 1 or more."),
        ("adapter.alpha: nan", "adapter.alpha: 'nan' is not a number."),
        ("optimizer.beta1: x", "optimizer.beta1: 'x' is not a number."),
        ("optimizer.name: adam", "optimizer.name: 'adam' is not a choice. Choose one of: adamw,"),
        ("data.flip: 1", "data.flip: '1' is not true or false."),
        (f"{LR}: 1e-4, 0.0001", f"{LR}: 0.0001 is given twice. Keep one."),
        (f"{RANK}: 1e400", "adapter.rank: '1e400' is not a whole number."),
    ],
)
def test_mistakes_are_told_with_what_to_do(line, expected):
    told = mistakes("training.seed: 1, 2", "", line)
    assert len(told) == 1
    assert told[0].startswith("sweep[2]: ")
    assert expected in told[0]


def test_all_mistakes_are_told_together():
    told = mistakes(f"{RANK}: 0, 8.5, 9999", f"{RANK}: 1", f"{RANK}: 2", "nothing")
    assert [line.partition(":")[0] for line in told] == ["sweep[0]"] * 3 + ["sweep[1]", "sweep[2]", "sweep[3]"]
    assert mistakes(f"{RANK}: 1", f"{RANK}: 2") == [
        "sweep[1]: adapter.rank is varied twice. Put all its values into one line."
    ]


def test_expansion_checks_what_did_not_come_from_lines():
    base = RunConfig(name="mikori")
    for sweep, message in (
        ({"adapter.rnak": [1]}, "Did you mean adapter.rank"),
        ({RANK: []}, "adapter.rank has no values"),
        ({"training.seed": range(40), RANK: range(1, 26)}, "1000 combinations; 999 are allowed"),
    ):
        with pytest.raises(ConfigError, match=message):
            sweeps.expand(base, sweep)
    for value in ("8", 8.0, None, True, 0):
        with pytest.raises(ProblemsFound):
            sweeps.expand(base, {RANK: [value]})
    with pytest.raises(ConfigError, match="name"):
        sweeps.expand(replace(base, name="a/b"), {RANK: [1]})
    assert sweeps.expand(base, {"adapter.alpha": [4]})[0].adapter.alpha == 4.0


PATHS = st.sampled_from([path for path, _ in flat(RunConfig())] + ["adapter.rnak", ""])
TOKENS = ["1", "0.5", "1e-4", "none", "true", ",", '"', "[", "]", " ", "\\", "adamw", "é", ":", "a,b"]
VALUES = st.lists(st.sampled_from(TOKENS)).map("".join)


@given(st.lists(st.one_of(st.text(), st.tuples(PATHS, VALUES).map(": ".join)), max_size=3), st.text(max_size=80))
def test_any_lines_give_runs_with_good_names_or_their_mistakes(lines, name):
    with suppress(ProblemsFound, ConfigError):
        sweep = sweeps.parse(lines)
        base = RunConfig(name=name)
        names = [config.name for config in sweeps.expand(base, sweep)]
        for found in names if sweep else ():
            assert files.check_name(found, "name") == found
            assert len(found) <= 64
            assert not set(found) & set(':<>,"/') - set(name)
        assert len({found.casefold() for found in names}) == len(names)
