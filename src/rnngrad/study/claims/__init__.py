"""What the question and the tutorials say, each statement with a criterion and a verdict."""
