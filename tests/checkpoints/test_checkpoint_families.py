from __future__ import annotations

from pathlib import Path

import pytest
from pico import FAMILIES as PICO
from pico import make_family

from auto_merge.checkpoints.checkpoint import open_checkpoint
from auto_merge.checkpoints.families import FAMILIES, family_of
from auto_merge.errors import CheckpointError


@pytest.mark.parametrize("family", PICO)
def test_every_tensor_of_every_family_has_a_role(tmp_path: Path, family: str) -> None:
    checkpoint = open_checkpoint(make_family(tmp_path / "m", family, layers=3))
    names = checkpoint.family
    assert checkpoint.num_layers == 3
    assert names.embedding in checkpoint.tensors
    assert (checkpoint.head is None) == checkpoint.tied
    sizes = {len(layer) for layer in checkpoint.layer_tensors}
    assert len(sizes) == 1
    covered = 3 * sizes.pop() + len(checkpoint.outer_tensors) + (checkpoint.head is not None)
    assert covered == len(checkpoint.tensors)
    embeddings = [n for n in checkpoint.outer_tensors if names.side_of(n) == "embedding"]
    assert embeddings == [names.embedding]
    for layer, tensors in enumerate(checkpoint.layer_tensors):
        for rest, name in tensors.items():
            assert names.at_layer(rest, layer) == name
    in_layer = checkpoint.layer_tensors[1].values()
    assert sum(names.matches("self_attn", name) for name in in_layer) >= 2
    assert sum(names.matches("mlp", name) for name in in_layer) >= 2
    assert not any(names.matches("self_attn", n) and names.matches("mlp", n) for n in in_layer)
    assert not any(names.matches("self_attn", n) for n in in_layer if "layernorm" in n)


def test_filters_are_groups_or_parts_of_names() -> None:
    neox = family_of("gpt_neox", 1, [])
    assert neox.matches("self_attn", "gpt_neox.layers.0.attention.dense.weight")
    assert not neox.matches("self_attn", "gpt_neox.layers.0.post_attention_layernorm.weight")
    llama = family_of("llama", 1, [])
    assert llama.matches("k_proj", "model.layers.0.self_attn.k_proj.weight")
    assert llama.matches("embed_tokens", "model.embed_tokens.weight")
    assert not llama.matches("mlp", "model.embed_tokens.weight")


def test_names_outside_layers_are_no_layers() -> None:
    llama = family_of("llama", 1, [])
    assert llama.layer_of("model.layers.12.mlp.up_proj.weight") == 12
    assert llama.layer_of("model.norm.weight") is None
    assert llama.layer_of("model.layers.x.weight") is None
    assert llama.side_of("model.norm.weight") == "head"


def test_unknown_types_are_inferred_from_names() -> None:
    names = ["net.wte.weight", "net.out.norm.weight", "lm_head.weight"]
    for layer in range(2):
        names += [f"net.block.{layer}.attn.q.weight", f"net.block.{layer}.ffn.experts.0.weight"]
        names += [f"net.block.{layer}.ffn.experts.1.weight"]
    family = family_of("novel", 2, names)
    assert family.layer_prefix == "net.block."
    assert family.embedding == "net.wte.weight"
    assert family.heads == ("lm_head.weight",)
    assert family.side_of("net.wte.weight") == "embedding"
    assert family.side_of("net.out.norm.weight") == "head"
    assert family.matches("mlp", "net.block.0.ffn.experts.1.weight")


def test_unknown_types_without_countable_layers_are_refused() -> None:
    with pytest.raises(CheckpointError, match="'novel' is unknown and no tensor names count 3"):
        family_of("novel", 3, ["net.block.0.weight", "net.block.1.weight"])


def test_rows_do_not_compete() -> None:
    kinds = [kind for family in FAMILIES for kind in family.model_types]
    assert len(kinds) == len(set(kinds))
