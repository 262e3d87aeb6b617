"""Finds the best merge of fine-tuned models automatically.

Importing this package loads no torch, transformers, smac, lm_eval or ray.
"""

__version__ = "0.1.0"
