"""Comparisons with the stored results of EfficientMORL's reference, a module per subject.

Every module has functions `<kind>_cases(golden) -> {name: check}`; a check takes no argument and
fails with an AssertionError. Whether a file is of a kind is decided by its keys.

Arrays of the files are NCHW, with slots and pictures in one axis [N * K]; weights are PyTorch's.
"""
