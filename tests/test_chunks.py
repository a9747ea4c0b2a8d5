"""Chunks of weighted captions are cut and weighted as the WebUI does."""

import ast
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.hosts.chunks import chunk_weighted, framed, framed_weights, split, split_weighted
from lib_lora_trainer.hosts.emphasized import apply, pieces

COMMA = 1
IDS = st.lists(st.sampled_from([COMMA, 2, 3, 4, 5, 6, 7, 8, 9]), max_size=120)
PIECES = st.lists(st.one_of(st.none(), st.tuples(IDS, st.sampled_from([1.0, 1.1, 0.5, -1.0]))), max_size=6)


@given(parts=st.lists(IDS, max_size=5), reach=st.integers(0, 75))
def test_weights_change_no_chunk(parts, reach):
    ids = [token for part in parts for token in part]
    weighted = split_weighted([(part, float(index)) for index, part in enumerate(parts)], COMMA, reach)
    assert [list(chunk) for chunk, _ in weighted] == split(ids, COMMA, reach)
    belonging = [float(index) for index, part in enumerate(parts) for _ in part]
    assert [weight for _, weights in weighted for weight in weights] == belonging


def test_words_behind_the_last_comma_move_with_their_weights():
    phrase = [*range(100, 170), COMMA, 200, 201, 202, 203]
    chunks = split_weighted([(phrase, 1.0), ([204, 205], 1.3)], COMMA)
    assert chunks == [(phrase[:71], [1.0] * 71), ([200, 201, 202, 203, 204, 205], [1.0] * 4 + [1.3] * 2)]


def test_a_break_begins_a_chunk():
    assert split_weighted([([2], 1.0), None, ([3, 4], 1.1)], COMMA) == [([2], [1.0]), ([3, 4], [1.1, 1.1])]
    assert split_weighted([None, ([3], 1.0)], COMMA) == [([], []), ([3], [1.0])]
    assert split_weighted([([3], 1.0), None], COMMA) == [([3], [1.0])]
    assert split_weighted([], COMMA) == [([], [])] == split_weighted([None], COMMA)


def test_weights_are_framed_beside_their_tokens():
    ids, weights = list(range(100, 110)), [1.2] * 10
    tokens, factors = framed(ids, 7, 8, 9), framed_weights(weights)
    assert len(tokens) == len(factors) == 77
    assert [token for token, factor in zip(tokens, factors, strict=True) if factor == 1.2] == ids
    assert framed_weights([]) == [1.0] * 77
    assert framed_weights([0.5] * 75) == [1.0, *[0.5] * 75, 1.0]


def test_exactly_so_many_chunks_as_asked():
    parts = [(list(range(2, 92)), 1.1)]
    assert [len(ids) for ids, _ in chunk_weighted(parts, COMMA, 3)] == [75, 15, 0]
    assert chunk_weighted(parts, COMMA, 1) == split_weighted(parts, COMMA)[:1]


def test_a_caption_becomes_weighted_tokens():
    found = pieces("a (b c:1.3) BREAK d", lambda text: [ord(word) for word in text.split()])
    assert found == [([97], 1.0), ([98, 99], 1.3), ([], 1.0), None, ([100], 1.0)]


def the_webuis_tokenize_line():
    """Return the WebUI's own method as a function of (self, line), with names of its modules left to be filled."""
    path = Path(os.environ["SD_WEBUI_DIR"]) / "modules" / "sd_hijack_clip.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wanted = {"PromptChunk", "tokenize_line"}
    found = [node for node in ast.walk(tree) if getattr(node, "name", "") in wanted]
    assert len(found) == 2
    names = {}
    exec(compile(ast.Module(found, []), str(path), "exec"), names)
    return names


@pytest.mark.webui
def test_chunks_are_the_webuis():
    names = the_webuis_tokenize_line()
    wrapper = SimpleNamespace(
        chunk_length=75,
        comma_token=COMMA,
        id_start=-1,
        id_end=-2,
        hijack=SimpleNamespace(
            embedding_db=SimpleNamespace(find_embedding_at_position=lambda tokens, position: (None, None))
        ),
        tokenize=lambda texts: [[] if text == "BREAK" else text for text in texts],
    )

    @given(parts=PIECES, reach=st.sampled_from([0, 5, 20, 74]))
    def agree(parts, reach):
        # A piece's text stands for its tokens. The end of the line drops an empty last chunk.
        parsed = [("BREAK", -1) if part is None else part for part in parts]
        names["opts"] = SimpleNamespace(emphasis="Original", comma_padding_backtrack=reach)
        names["prompt_parser"] = SimpleNamespace(parse_prompt_attention=lambda line: parsed)
        chunks, _ = names["tokenize_line"](wrapper, "")
        ours = split_weighted(parts, COMMA, reach)
        assert [framed(ids, -1, -2, -2) for ids, _ in ours] == [chunk.tokens for chunk in chunks]
        assert [framed_weights(weights) for _, weights in ours] == [chunk.multipliers for chunk in chunks]

    agree()


def test_emphasis_weights_states_and_restores_their_mean():
    torch.manual_seed(0)
    hidden = torch.randn(1, 77, 4) + 0.5
    weights = torch.tensor([framed_weights([1.0, 2.0, 0.5])])
    found = apply(hidden, weights)
    assert found.mean().item() == pytest.approx(hidden.mean().item(), rel=1e-5)
    # After the common factor of the mean, each token's states are its weight times what they were.
    ratio = (found / hidden)[0, :, 0]
    assert torch.allclose(ratio / ratio[0], weights[0], rtol=1e-5)
    factor = hidden.double().mean() / (hidden.double() * weights.double()[:, :, None]).mean()
    assert ratio[0].item() == pytest.approx(factor.item(), rel=1e-5)


def test_without_emphasis_nothing_changes():
    hidden = torch.randn(2, 77, 8, dtype=torch.bfloat16)
    assert torch.equal(apply(hidden, torch.ones(2, 77)), hidden)


def test_emphasis_does_not_depend_on_the_batch():
    torch.manual_seed(1)
    hidden = torch.randn(3, 77, 8)
    weights = torch.rand(3, 77) + 0.5
    alone = torch.cat([apply(hidden[i : i + 1], weights[i : i + 1]) for i in range(3)])
    assert torch.allclose(apply(hidden, weights), alone, rtol=1e-5)


def test_emphasis_passes_gradients_on():
    hidden = torch.randn(1, 77, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([framed_weights([1.4, 0.8])], dtype=torch.float64)
    apply(hidden, weights).sum().backward()
    assert hidden.grad is not None and torch.isfinite(hidden.grad).all() and hidden.grad.abs().sum() > 0


@pytest.mark.webui
def test_emphasis_is_the_webuis_original():
    path = Path(os.environ["SD_WEBUI_DIR"]) / "modules" / "sd_emphasis.py"
    names = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    torch.manual_seed(2)
    theirs = names["EmphasisOriginal"]()
    theirs.z = torch.randn(1, 77, 16) + 0.3
    theirs.multipliers = torch.tensor([framed_weights([1.0, 1.3, 0.4])])
    hidden = theirs.z.clone()
    theirs.after_transformers()
    assert torch.allclose(apply(hidden, theirs.multipliers), theirs.z, rtol=1e-5)
