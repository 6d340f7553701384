"""From result files to figures and a page that a person reads."""

from rnngrad.errors import needs

needs("study", "jinja2", "plotly")
