"""Scoring merged models on lm-eval tasks: which documents, in which order, paid for once."""
