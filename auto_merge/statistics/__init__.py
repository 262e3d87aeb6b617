"""Statistics of comparisons: what may be claimed from paired scores, seeds and trials.

numpy, scipy and scikit-learn are imported inside functions: naming a type here costs nothing.
"""

from __future__ import annotations

from auto_merge.statistics.hypervolume import (
    contribution,
    hypervolume,
    hypervolume_share,
    largest_subset,
)
from auto_merge.statistics.importance import Importance, Share, parameter_importance
from auto_merge.statistics.paired import (
    Comparison,
    PairedTask,
    paired_comparison,
    simultaneous_comparisons,
)
from auto_merge.statistics.ranks import SignedRank, holm, signed_rank

__all__ = [
    "Comparison",
    "Importance",
    "PairedTask",
    "Share",
    "SignedRank",
    "contribution",
    "holm",
    "hypervolume",
    "hypervolume_share",
    "largest_subset",
    "paired_comparison",
    "parameter_importance",
    "signed_rank",
    "simultaneous_comparisons",
]
