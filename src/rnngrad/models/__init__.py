"""The trained networks of the study: initialisers, the classifier, its training, its weights."""
