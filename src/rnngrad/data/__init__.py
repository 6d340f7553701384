"""Comments, sampling, words and word vectors: stages 1 to 3 of the pipeline.

Whatever is wrong with what a person or an earlier stage gave is an InputError.
"""
