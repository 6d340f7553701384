"""From result files to figures and a page that a person reads."""

from rnngrad.errors import needs

with needs("study"):
    import plotly  # noqa: F401  it is there where the others are
