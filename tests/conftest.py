"""Settings that every test shares."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# Before any vendor is imported: no network, no bars, no threads beside those of the tests.
for name, value in {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    # Compiled kernels are kept between runs of the tests, everything else goes to tmp_path.
    "AUTO_MERGE_CACHE": str(Path(tempfile.gettempdir()) / f"auto-merge-tests-{os.getuid()}"),
    "HYPOTHESIS_STORAGE_DIRECTORY": str(Path(tempfile.gettempdir()) / "auto-merge-hypothesis"),
}.items():
    os.environ.setdefault(name, value)

sys.path.insert(0, str(Path(__file__).parent))
