"""Search spaces over recipes, one module per strategy."""
