"""Prepares data sets off-line: raw files in, ArrayRecord shards and a data card out.

`python -m data_prep.build NAME` runs the builder of one data set; training only ever opens the
folder that this leaves behind. Nothing here imports `hvae_tpu`.
"""
