"""Named methods: each a YAML file that says what its name stands for."""
