"""How much memory does a plan need? Read off the plan alone: no tensor is made, no torch is loaded."""
