"""Why is it zero? The setting behind the question, and the same with one factor changed."""
