"""Comparisons with the stored results of Efficient-VDVAE's reference, a module per subject.

Every module has functions `<kind>_cases(golden) -> {name: check}`; a check takes no argument and
fails with an AssertionError. Whether a file is of a kind is decided by its keys.

All files but one are of the reference's JAX form (NHWC).
"""
