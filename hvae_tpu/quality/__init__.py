"""How close sets of pictures are, without a human: distances between features of them.

A number is worth nothing without the name of what computed the features, so every result carries
it. None of them is the FID of a paper.
"""

from hvae_tpu.quality.measures import Measure, compare, measures

__all__ = ['Measure', 'compare', 'measures']
