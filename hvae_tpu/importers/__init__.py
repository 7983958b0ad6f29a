"""Checkpoints of reference implementations, read into our parameters and written back.

A format is a list of `tables.Entry`, one per array of the reference; both directions follow from
it. Each format has a module with `entries(model)`, that list for a model of ours, and
`rename(tensors)`, which brings the names found in a file into the form that the list uses.
"""
