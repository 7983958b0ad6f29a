"""Comparisons with the stored results of the VDVAE references, one module per subject.

Every module has functions `<kind>_cases(golden) -> {name: check}`; a check takes no argument and
fails with an AssertionError. Whether a file is of a kind is decided by its keys.

The release is openai/vdvae (PyTorch, NCHW); the port is j-towns/vdvae-jax (NHWC).
"""
