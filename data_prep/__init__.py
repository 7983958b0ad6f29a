"""Off-line preparation of data sets: raw files in, ArrayRecord shards and a data card out.

`python -m data_prep.build NAME` runs the builder of one data set; training only reads the folder
that it writes. Of `hvae_tpu` it imports `storage`, and `data_prep.bench` also `data`.
"""
