"""Checkpoints of reference implementations, read into our parameters and written back."""

from hvae_tpu.importers import cwvae, efficient_morl, efficient_vdvae, exchange, nvae, vdvae
from hvae_tpu.importers.formats import Format

FORMATS: dict[str, Format] = {
  'openai_vdvae': vdvae.OPENAI,
  'vdvae_jax': vdvae.JAX,
  'efficient_vdvae_jax': efficient_vdvae.JAX,
  'efficient_vdvae_torch': efficient_vdvae.PYTORCH,
  'cwvae_jax': cwvae.JAX,
  'cwvae_tf': cwvae.TENSORFLOW,
  'nvae': nvae.NVLABS,
  'nvae_seed': nvae.MGP123,
  'efficient_morl': efficient_morl.PYTORCH,
  'hvae_tpu': exchange.FORMAT,
}
