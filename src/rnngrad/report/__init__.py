"""From result files to figures and a page that a person reads."""
