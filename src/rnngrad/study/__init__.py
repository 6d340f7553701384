"""The study: runs of models, measures of them, and what the claims are worth."""

from rnngrad.errors import needs

needs("study", "pydantic", "pyarrow")

WEIGHTS = ("init", "trained")  # before and after training
MILESTONES = (1, 20, 100, 400, 1383)  # steps that tables show, beside the last one
