"""The statements of the question and of the tutorials, each with a criterion and a verdict."""
