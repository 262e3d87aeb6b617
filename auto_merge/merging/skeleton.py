"""An empty model: the right modules, real small buffers, weights that take no memory yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auto_merge.checkpoints.families import FAMILIES
from auto_merge.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def build_skeleton(
    config: Mapping[str, Any], dtype: str, donor: Path, device: torch.device
) -> PreTrainedModel:
    """Builds a model in evaluation mode whose weights are on the meta device.

    Buffers that are computed, such as rotary frequencies, are real and exact.

    Args:
        config: ``config.json`` of the result.
        dtype: Name in torch of the weights' dtype.
        donor: Folder whose ``generation_config.json``, if any, the model takes over.
        device: Where the buffers go.

    Raises:
        CheckpointError: transformers does not know the architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    settings = dict(config)
    kind = settings.pop("model_type")
    try:
        hf_config = AutoConfig.for_model(kind, **settings)
        with _weights_on_meta():
            model = AutoModelForCausalLM.from_config(hf_config, dtype=getattr(torch, dtype))
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"transformers cannot build a {kind!r} model: {reason}") from error
    if (donor / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(donor)
    # The loader of transformers sets this too; it is where a model says that it came from.
    model.config._name_or_path = str(donor)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)
    return model.eval()


def _contiguous(head: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """Makes a slice of the last positions contiguous before the output matrix is applied.

    Where a weight takes no gradient, torch multiplies a batch that is not contiguous row by row
    and copies the weight for every row: five times the time of the whole forward pass.
    """
    return (inputs[0].contiguous(),)


def parameter_places(
    model: PreTrainedModel,
) -> dict[str, tuple[tuple[torch.nn.Module, str], ...]]:
    """Returns for every parameter name the modules and attributes that hold that parameter.

    Tied parameters have several names with the same places. The output matrix also stands under
    the names that it has in other versions of transformers.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    places = {}
    for shared in names.values():
        held = tuple(
            (model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
            for name in shared
        )
        places.update(dict.fromkeys(shared, held))
    for family in FAMILIES:
        known = [name for name in family.heads if name in places]
        if known and model.config.model_type in family.model_types:
            places.update(dict.fromkeys(family.heads, places[known[0]]))
    return places


def _weights_on_meta() -> Any:
    """Returns a context in which ``torch.empty`` allocates nothing.

    Modules create large weights with ``torch.empty`` and initialise them at great cost; buffers
    with values come from other functions and stay real.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class WeightsOnMeta(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: dict[str, Any] | None = None,
        ) -> Any:
            kwargs = dict(kwargs or {})
            if func is torch.empty:
                kwargs["device"] = "meta"
            return func(*args, **kwargs)

    return WeightsOnMeta()
