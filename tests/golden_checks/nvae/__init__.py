"""Comparisons with the stored results of NVAE's two references, a module per subject.

Every module has functions `<kind>_cases(golden) -> {name: check}`; a check takes no argument and
fails with an AssertionError. Whether a file is of a kind is decided by its keys. Arrays in the
files are NCHW.
"""
