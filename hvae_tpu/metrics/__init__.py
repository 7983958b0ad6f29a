"""How close sets of pictures are, without a human: distances between features of them.

A number is worth nothing without the name of what computed the features, so every result carries
it. Only `inception`, with weights of the user, is the FID of papers.
"""

from hvae_tpu.metrics.measures import Measure, compare, measures

__all__ = ['Measure', 'compare', 'measures']
