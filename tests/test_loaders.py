"""What the plan says about the hosts' own Lora extensions, and about settings that contradict each other."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

import adapter_cases
from lib_lora_trainer.adapters import loaders, methods
from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.config.adapter import METHODS, AdapterConfig


def said(host: str, config: AdapterConfig, family: str = "sd1") -> str:
    return " ".join(map(str, loaders.problems(host, family, config)))


def refused(**settings) -> list[str]:
    return [problem.where for problem in methods.problems(AdapterConfig(**settings)) if problem.severity == "error"]


def test_each_host_has_its_methods() -> None:
    everything = set(METHODS)
    assert loaders.loadable("webui", "sdxl").methods == loaders.loadable("standalone", "sd1").methods == everything
    assert everything - loaders.loadable("forge", "sd1").methods == {"ia3", "oft", "boft"}
    assert everything - loaders.loadable("reforge", "sd1").methods == {"ia3"}
    assert loaders.loadable("elsewhere", "sd1").basis == "unknown"
    bases = [loaders.loadable(host, "sd2").basis for host in ("webui", "forge", "reforge", "standalone")]
    assert bases == ["tested", "read", "read", "own"]


def test_what_a_host_does_not_read_is_said_before_training() -> None:
    for method in METHODS:
        config = AdapterConfig(method=method, dylora_unit=1)
        assert ("does not read" in said("forge", config)) == (method in ("ia3", "oft", "boft"))
        assert ("does not read" in said("reforge", config)) == (method == "ia3")
        assert ("--no-half" in said("webui", config)) == (method in ("oft", "boft"))
        assert not said("standalone", config)
        assert "not known" in said("elsewhere", config)
    assert all(
        problem.severity == "warning" for problem in loaders.problems("forge", "sd1", AdapterConfig(method="oft"))
    )


def test_methods_of_rules_count_as_well() -> None:
    config = AdapterConfig(method="lora", rules=("IN04-07: rank=4", "/attn1/: method=ia3 rank=2"))
    assert "does not read ia3" in said("forge", config)


def test_norms_of_text_encoders_and_limits_of_rotations_differ_by_host() -> None:
    norms = AdapterConfig(norms=True)
    assert "12 such tensors" in said("forge", norms) and "leaves them out" in said("reforge", norms)
    assert not said("webui", norms) and not said("forge", AdapterConfig(norms=True, text_encoder=False))
    limited = AdapterConfig(method="oft", oft_constraint=0.1, oft_rescaled=True)
    assert "oft_constraint" in said("reforge", limited) and "oft_rescaled" in said("reforge", limited)
    assert "oft_rescaled" not in said("reforge", AdapterConfig(method="boft", oft_rescaled=True))


@pytest.mark.parametrize("method", METHODS)
def test_options_are_refused_where_a_method_has_none(method: str) -> None:
    base = {"method": method, "dylora_unit": 1}
    assert refused(**base) == []
    low = ("lora", "locon", "loha", "lokr")
    for name, there in (
        ("weight_decompose", low),
        ("tucker", low),
        ("scalar", (*low, "glora")),
        ("rank_stabilized", (*low, "glora", "dylora")),
    ):
        assert refused(**base, **{name: True}) == ([] if method in there else [f"adapter.{name}"])
    assert bool(refused(**base, scale_weight_norms=1.0)) == (method in ("oft", "boft"))


def test_sizes_that_contradict_each_other_are_refused() -> None:
    assert refused(method="dylora", rank=6, conv_rank=8, dylora_unit=4) == ["adapter.rank"]
    assert refused(method="dylora", rank=8, conv_rank=2, dylora_unit=4) == ["adapter.conv_rank"]
    assert refused(method="oft", rank=1) == ["adapter.rank"]
    both = {"method": "lokr", "lokr_full_matrix": True}
    assert refused(**both, lokr_decompose_both=True) == ["adapter.lokr_decompose_both"]
    assert refused(**both, rank_stabilized=True) == ["adapter.rank_stabilized"]


def test_a_missing_lycoris_is_said_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.2.0")
    assert "2.2.0 is too old" in str(methods.problems(AdapterConfig())[0])
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "lycoris", None)
    needing = {method for method in METHODS if refused(method=method, dylora_unit=1) == ["adapter.method"]}
    assert needing == {"lora", "locon", "loha", "lokr", "glora", "dylora"}
    (problem,) = methods.problems(AdapterConfig())
    assert (
        "lora needs version 3 or 4 of LyCORIS: lycoris-lora is not installed" in str(problem)
        and "pip install" in problem.fix
    )
    assert refused(start_from="adapter.safetensors") == []
    for name in ("locon", "loha", "lokr", "glora", "dylora"):
        monkeypatch.setitem(sys.modules, f"lycoris.modules.{name}", None)
    for method in needing:
        with pytest.raises(UserError, match="pip install --upgrade lycoris-lora"):
            adapter_cases.new(adapter_cases.Case(method), "linear")
    adapter_cases.new(adapter_cases.Case("full"), "linear")
