"""Functions that explore the latent space of a model which `hvae_tpu.load` has loaded.

    model, params, state, config = hvae_tpu.load('runs/demo_mnist-vdvae')
    pictures = generation.vary(model, params, state, group=3)

The model needs the methods `draw_prior`, `encode` and `decode`. Pictures are uint8 arrays.
"""

from hvae_tpu.generation.candidates import candidates
from hvae_tpu.generation.paths import combine, interpolate
from hvae_tpu.generation.variation import sweep, vary

NEEDS = ('draw_prior', 'encode', 'decode', 'level_names')

__all__ = ['NEEDS', 'candidates', 'combine', 'interpolate', 'sweep', 'vary']
