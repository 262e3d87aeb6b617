"""Tokenizer files of a model with tokens added to them; all else stays as it is. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auto_merge.checkpoints.fingerprints import FileHashes, canonical, tokenizer_digest
from auto_merge.checkpoints.folder import TOKENIZER_FILES, read_json
from auto_merge.checkpoints.vocabulary import TOKENIZER, AddedToken
from auto_merge.errors import CheckpointError

_SETTINGS = "tokenizer_config.json"
_OLD_LIST = "added_tokens.json"


def extended_files(donor: Path, added: Sequence[AddedToken]) -> dict[str, str]:
    """Returns the files that change when tokens are added to a tokenizer, name -> content.

    Args:
        donor: Folder with ``tokenizer.json``.
        added: The tokens with the ids that they must have, ascending; none: no file changes.

    Raises:
        CheckpointError: A file is damaged, or the tokenizer gives a token another id.
    """
    if not added:
        return {}
    data = read_json(donor / TOKENIZER)
    data["added_tokens"] = [*(data.get("added_tokens") or ()), *(t.to_json() for t in added)]
    texts = {TOKENIZER: _text(data)}
    _check_ids(donor, texts[TOKENIZER], added)
    settings = _read(donor / _SETTINGS)
    # Older files list added tokens a second time; loaders without tokenizer.json read it here.
    if isinstance(settings.get("added_tokens_decoder"), dict):
        settings["added_tokens_decoder"] |= {str(token.id): _described(token) for token in added}
        texts[_SETTINGS] = _text(settings)
    if (donor / _OLD_LIST).is_file():
        ids = {token.content: token.id for token in added}
        texts[_OLD_LIST] = _text(read_json(donor / _OLD_LIST) | ids)
    return texts


def extended_tokenizer(donor: Path, added: Sequence[AddedToken], cache_dir: Path) -> Path:
    """Returns a folder that transformers loads the tokenizer with its added tokens from.

    Args:
        donor: Folder of the model that gives the tokenizer; it is returned if nothing is added.
        added: The tokens, see :func:`extended_files`.
        cache_dir: The folder is made under it, once for equal content; several processes may do
            so at a time.

    Raises:
        CheckpointError: A file is damaged or cannot be written, or a token gets another id.
    """
    if not added:
        return donor
    content = [tokenizer_digest(donor, FileHashes()), [token.to_json() for token in added]]
    config = (donor / "config.json").read_bytes()
    name = hashlib.sha256(canonical(content).encode() + config).hexdigest()
    folder = cache_dir / "tokenizers" / name
    if folder.is_dir():
        return folder
    texts = extended_files(donor, added)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write(donor, texts, folder)
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def _write(donor: Path, texts: dict[str, str], folder: Path) -> None:
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        for name in (*TOKENIZER_FILES, "config.json", "generation_config.json"):
            if name in texts:
                (part / name).write_text(texts[name], encoding="utf-8")
            elif (donor / name).is_file():
                shutil.copyfile(donor / name, part / name)
        try:
            os.rename(part, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_ids(donor: Path, text: str, added: Sequence[AddedToken]) -> None:
    """Loads the new tokenizer: the rows of the merged matrices depend on its ids."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more precise
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{donor / TOKENIZER} cannot be loaded: {reason}") from error
    for token in added:
        found = tokenizer.token_to_id(token.content)
        if found != token.id:
            raise CheckpointError(
                f"{donor / TOKENIZER}: the added token {token.content!r} gets id {found}, not "
                f"{token.id}; save the tokenizer anew with a current transformers"
            )


def _described(token: AddedToken) -> dict[str, Any]:
    return {key: value for key, value in token.to_json().items() if key != "id"}


def _read(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _text(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"
