"""From recipe to weights: a plan (pure data), then a live model in memory or a folder on disk."""
