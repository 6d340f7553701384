"""How fast the probe is beside everything a user would pick instead. See README.md."""
