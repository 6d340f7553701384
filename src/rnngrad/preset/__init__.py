"""Named studies: what each changes in params.yaml, and what it takes before it starts."""
