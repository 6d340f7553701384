"""Imported last by the process that workers are copies of: they find the probe's loops compiled."""

from rnngrad.probe import compile_loops

compile_loops()
