"""Pure functions that score arrays: pictures, frames, segmentations, representations.

`measures` and `compare` score sets of pictures by distances between their features. Such a number
means nothing without the name of the feature extractor, so every result carries it. Only
`inception`, with weights of the user, is the FID of papers.
"""

from hvae_tpu.metrics.measures import Measure, compare, measures

__all__ = ['Measure', 'compare', 'measures']
