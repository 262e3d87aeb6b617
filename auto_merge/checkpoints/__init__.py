"""Model folders on disk: hostile-proof headers, mapped tensors, names per family, fingerprints."""
