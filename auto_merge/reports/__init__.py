"""Reports of a run: terminal tables, live progress, plots, one HTML file, model cards.

Everything here reads :class:`~auto_merge.runs.view.RunView` values and computes no score of its
own. Scores are shown in points: scaled score times one hundred.
"""
