"""From a plan to a trained network."""
