"""What would a step take on other numbers of processes? Their programs are run on costs in place of tensors."""
