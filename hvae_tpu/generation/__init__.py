"""Moving about in the latent space of a trained model: functions on what `hvae_tpu.load` returns.

    model, params, state, config = hvae_tpu.load('runs/demo_mnist-vdvae')
    pictures = generation.vary(model, params, state, group=3)

They need the methods `draw_prior`, `encode` and `decode` of a model, and return uint8 arrays.
"""

from hvae_tpu.generation.candidates import candidates
from hvae_tpu.generation.paths import combine, interpolate
from hvae_tpu.generation.variation import sweep, vary

NEEDS = ('draw_prior', 'encode', 'decode', 'level_names')

__all__ = ['NEEDS', 'candidates', 'combine', 'interpolate', 'sweep', 'vary']
