"""An opened model folder: configuration, tensor descriptions, tensors on demand."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from auto_merge.checkpoints.families import Family, family_of
from auto_merge.checkpoints.fingerprints import (
    FileHashes,
    canonical,
    folder_digest,
    tokenizer_digest,
)
from auto_merge.checkpoints.folder import find_tensors, pickled_files, read_config
from auto_merge.checkpoints.headers import WEIGHT_DTYPES, TensorInfo
from auto_merge.checkpoints.mapped import MappedFiles
from auto_merge.checkpoints.pickled import read_pickled
from auto_merge.checkpoints.vocabulary import read_vocabulary
from auto_merge.errors import CheckpointError, nearest

if TYPE_CHECKING:
    import torch


class Checkpoint:
    """A model folder whose headers were read and checked; weights are mapped when asked for.

    Attributes:
        path: Absolute folder.
        config: ``config.json``.
        tensors: Weights by name, leftover buffers excluded.
        family: Naming of its tensors.
        num_layers: Number of decoder layers.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        tensors: Mapping[str, TensorInfo],
        family: Family,
        views: dict[str, torch.Tensor],
    ) -> None:
        self.path = path
        self.config = config
        self.tensors = tensors
        self.family = family
        self.num_layers: int = config["num_hidden_layers"]
        self._files = MappedFiles()
        self._views = views
        self._fingerprint = ""

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r})"

    @cached_property
    def dtype(self) -> str:
        """Name in torch of the dtype that most bytes of the weights have (``"bfloat16"``)."""
        counts: Counter[str] = Counter()
        for info in self.tensors.values():
            counts[info.dtype] += info.nbytes
        return WEIGHT_DTYPES[max(counts, key=lambda dtype: counts[dtype])]

    @cached_property
    def head(self) -> str | None:
        """Name of the output matrix, ``None`` if the folder has none."""
        return next((name for name in self.family.heads if name in self.tensors), None)

    @cached_property
    def tied(self) -> bool:
        """Whether the output matrix is the embedding matrix, by settings or for lack of one."""
        by_config = self.config.get("tie_word_embeddings", self.family.tied_by_default)
        return bool(by_config) or self.head is None

    @cached_property
    def layer_tensors(self) -> tuple[Mapping[str, str], ...]:
        """For every layer, name inside the layer (``"mlp.up_proj.weight"``) -> full name."""
        layers: list[dict[str, str]] = [{} for _ in range(self.num_layers)]
        for name in self.tensors:
            layer = self.family.layer_of(name)
            if layer is not None:
                layers[layer][self.family.rest_of(name)] = name
        return tuple(layers)

    @cached_property
    def outer_tensors(self) -> tuple[str, ...]:
        """Names outside the layers, without the output matrix."""
        return tuple(
            name
            for name in self.tensors
            if self.family.layer_of(name) is None and name != self.head
        )

    @cached_property
    def vocabulary(self) -> Mapping[str, int] | None:
        """Token -> id of ``tokenizer.json``; ``None`` if the folder has no such file."""
        return read_vocabulary(self.path)

    @cached_property
    def vocabulary_digest(self) -> str:
        """Equal for equal vocabularies; empty if there is none to compare."""
        if self.vocabulary is None:
            return ""
        text = canonical(self.vocabulary)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def tokenizer_digest(self) -> str:
        """Content of tokenizer files and generation settings (SHA-256)."""
        return tokenizer_digest(self.path, FileHashes())

    @property
    def fingerprint(self) -> str:
        """Content of weights, configuration and tokenizer as 64 hexadecimal digits (SHA-256).

        Reads every file once. :func:`fingerprint` remembers the result between processes.
        """
        return self.take_fingerprint(FileHashes())

    def take_fingerprint(self, hashes: FileHashes) -> str:
        """Computes the fingerprint with the given file hashes, once; later calls return it."""
        if not self._fingerprint:
            files = sorted({info.file for info in self.tensors.values()})
            self._fingerprint = folder_digest(self.path, files, hashes)
        return self._fingerprint

    def tensor(self, name: str) -> torch.Tensor:
        """Returns a tensor as a zero-copy view of the file; never write to it.

        Raises:
            CheckpointError: There is no such tensor, or its file is gone.
        """
        if name not in self._views:
            if name not in self.tensors:
                raise CheckpointError(f"{self.path} has no {name!r}{nearest(name, self.tensors)}")
            self._views[name] = self._files.view(self.tensors[name])
        return self._views[name]


def open_checkpoint(path: Path | str, *, allow_pickle: bool = False) -> Checkpoint:
    """Opens a model folder: reads its configuration and headers, no weights.

    Args:
        path: Folder; relative to the working directory if not absolute.
        allow_pickle: Whether ``pytorch_model*.bin`` is read (without running code) where the
            folder has no safetensors.

    Raises:
        CheckpointError: Missing, damaged, unsafe, quantised or of an unsupported kind.
    """
    folder = Path(path).expanduser().absolute()
    config = read_config(folder)
    views: dict[str, torch.Tensor] = {}
    if allow_pickle and pickled_files(folder) and not list(folder.glob("*.safetensors")):
        found, views = read_pickled(pickled_files(folder))
    else:
        found = find_tensors(folder)
    family = family_of(config["model_type"], config["num_hidden_layers"], found)
    tensors = {name: info for name, info in found.items() if not family.ignores(name)}
    _check_dtypes(folder, tensors)
    _check_layers(folder, config, family, tensors)
    return Checkpoint(folder, MappingProxyType(config), MappingProxyType(tensors), family, views)


def fingerprint(checkpoint: Checkpoint, cache_dir: Path) -> str:
    """Returns ``checkpoint.fingerprint``; files hashed before are looked up under ``cache_dir``."""
    with FileHashes(cache_dir) as hashes:
        return checkpoint.take_fingerprint(hashes)


def _check_dtypes(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    for info in tensors.values():
        if info.dtype not in WEIGHT_DTYPES:
            raise CheckpointError(
                f"{folder}: {info.name} has dtype {info.dtype}, so the model is quantised or has "
                f"unknown buffers; mergeable dtypes: {', '.join(WEIGHT_DTYPES)}"
            )


def _check_layers(
    folder: Path, config: Mapping[str, Any], family: Family, tensors: Mapping[str, TensorInfo]
) -> None:
    """Every layer has tensors, there are no further ones, and the embedding exists."""
    wanted = config["num_hidden_layers"]
    found = {family.layer_of(name) for name in tensors} - {None}
    if found != set(range(wanted)):
        absent = sorted(set(range(wanted)) - found)
        detail = f"layers {absent} have no tensors" if absent else f"tensors count {len(found)}"
        raise CheckpointError(f"{folder}: config.json says {wanted} layers, but {detail}")
    if family.embedding not in tensors:
        raise CheckpointError(f"{folder} has no embedding matrix {family.embedding or '(embed)'}")
