"""The run folder: manifest, SQLite store of asks, tells and events, resume."""
