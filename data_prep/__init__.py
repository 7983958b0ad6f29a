"""Off-line preparation of data sets: raw files in, ArrayRecord shards and a data card out.

`python -m data_prep.build NAME` runs the builder of one data set; training only reads the folder
that it writes. Only `data_prep.bench` imports `hvae_tpu`.
"""
