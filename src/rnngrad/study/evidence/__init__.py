"""The evidence that the claims are judged by, measured on the study's models."""
