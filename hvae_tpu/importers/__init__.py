"""Checkpoints of reference implementations, read into our parameters and written back.

A format is a module of `FORMATS` with these functions:

SETTINGS                      fields of `config.model` that all models of the reference have
contents(held)                what a file holds, by field of the train state (`trees.Contents`)
example(model, found)         shapes of a batch of one example, to know the parameters of the model
field_tables(model, batch)    field -> list of `tables.Entry`, one per array of the reference; both
                              directions follow from it
"""

from hvae_tpu.importers import (
  cwvae_jax,
  cwvae_tf,
  efficient_morl,
  efficient_vdvae_jax,
  efficient_vdvae_torch,
  hvae_tpu,
  nvae_official,
  nvae_seed,
  openai_vdvae,
  vdvae_jax,
)

FORMATS = {
  'openai_vdvae': openai_vdvae,
  'vdvae_jax': vdvae_jax,
  'efficient_vdvae_jax': efficient_vdvae_jax,
  'efficient_vdvae_torch': efficient_vdvae_torch,
  'cwvae_jax': cwvae_jax,
  'cwvae_tf': cwvae_tf,
  'nvae': nvae_official,
  'nvae_seed': nvae_seed,
  'efficient_morl': efficient_morl,
  'hvae_tpu': hvae_tpu,
}
