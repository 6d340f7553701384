"""Comments, sampling, words and word vectors: stages 1 to 3 of the pipeline."""

from rnngrad.errors import needs

needs("study", "pydantic", "pyarrow")
