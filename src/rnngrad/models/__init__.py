"""The trained networks of the study; whatever is wrong with its input is an InputError."""
