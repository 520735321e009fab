"""Triton kernels for the parts of a step that take the time on a GPU; PyTorch computes the same elsewhere."""
