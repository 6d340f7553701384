"""The study: which curves are probed on which models, and how their spread is stated."""
