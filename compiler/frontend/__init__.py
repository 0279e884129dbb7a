"""From a spec to traced graphs: a network is made and traced in both modes, its nodes described."""
