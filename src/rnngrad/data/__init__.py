"""Comments, samples, words and vectors; whatever is wrong with its input is an InputError."""
