"""Layout strings: parsed fields, and refusals of strings for wrong networks."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.models.vdvae import layout
from tests.support import tiny

MODEL = tiny.SYSTEMS['vdvae'].model
SOUND = dict(image_size=8, enc_blocks='8x2,8d2,4x1,4d4,1x1', dec_blocks='1x1,4m1,4x1,8m4,8x1')


@pytest.mark.parametrize(
  ('string', 'blocks'),
  [
    ('8', [(8, None)]),
    ('8x3', [(8, None)] * 3),
    ('8m4', [(8, 4)]),
    ('8d2', [(8, 2)]),
    ('8x0,4', [(4, None)]),
    (' 8x1 , 4d2', [(8, None), (4, 2)]),
  ],
)
def test_blocks(string, blocks):
  assert layout.parse_blocks(string) == blocks


@pytest.mark.parametrize(
  'string', ['', '8x1,', '32x2x1', '32d2m1', '8X1', '8.5', '8x1.5', 'x3', '8m', '8-2']
)
def test_strings_that_are_no_blocks(string):
  with pytest.raises(ValueError, match='is none of R, RxN, RmM, RdK'):
    layout.parse_blocks(string)


def test_widths():
  assert layout.parse_widths('8:12,4:16,8:20') == {8: 20, 4: 16}
  assert layout.parse_widths('') == layout.parse_widths(None) == {}


@pytest.mark.parametrize('string', ['8:12,', '8', '8:a', ':8', '8:1:2'])
def test_strings_that_are_no_widths(string):
  with pytest.raises(ValueError, match='is not res:width'):
    layout.parse_widths(string)


def test_runs():
  names = [run.name for run in layout.encoder_runs('8x2,8d2,4x1,4d4,1x1')]
  assert names == ['enc_00_8x3', 'enc_01_4x2', 'enc_02_1x1']
  assert [run.rate for run in layout.encoder_runs('8x2,8d2,4x1,4d4,1x1')] == [2, 4, 1]
  runs = layout.decoder_runs('1x1,4m1,4x1,4m1,8m4,8x1')
  assert [run.name for run in runs] == ['dec_00_1x1', 'dec_01_4x2', 'dec_02_4x1', 'dec_03_8x2']
  assert [run.mixin for run in runs] == [None, 1, 1, 4]


@given(st.lists(st.sampled_from(['8x1', '8x3', '8', '8m4', '4x2', '4m8']), min_size=1))
def test_runs_keep_every_block(items):
  string = ','.join(items)
  blocks = layout.parse_blocks(string)
  unrolled = [
    (run.res, run.mixin if i == 0 else None)
    for run in layout.decoder_runs(string)
    for i in range(run.count)
  ]
  assert unrolled == blocks


def test_a_sound_layout_is_accepted():
  dataclasses.replace(MODEL, **SOUND)
  dataclasses.replace(MODEL, **SOUND, custom_width_str='4:8,1:16')


@pytest.mark.parametrize(
  ('fields', 'messages'),
  [
    # Strings.
    ({'enc_blocks': ''}, ["config.model.enc_blocks: item ''"]),
    ({'dec_blocks': '1x1,8y1'}, ["config.model.dec_blocks: item '8y1' of '1x1,8y1'"]),
    ({'custom_width_str': '4:8,'}, ["config.model.custom_width_str: item ''"]),
    (
      {'enc_blocks': '8y1', 'dec_blocks': '1z1'},
      ["config.model.enc_blocks: item '8y1'", "config.model.dec_blocks: item '1z1'"],
    ),
    # A mixin in the encoder, a rate in the decoder: the reference takes one for the other.
    ({'enc_blocks': '8x1,8m8,1x1'}, ["model.enc_blocks: item '8m8' uses 'm'", "use 'd'"]),
    ({'dec_blocks': '1x1,4d1,8x1'}, ["model.dec_blocks: item '4d1' uses 'd'", "use 'm'"]),
    # Numbers.
    ({'dec_blocks': '1x0'}, ['config.model.dec_blocks has no block']),
    ({'enc_blocks': '8d0'}, ['config.model.enc_blocks: block (8, 0) has a number below 1']),
    ({'dec_blocks': '-1x1'}, ['model.dec_blocks: block (-1, None) has a number below 1']),
    ({'custom_width_str': '4:0'}, ['model.custom_width_str: 4:0 has a number below 1']),
    # The encoder.
    ({'enc_blocks': '8x1,4x1'}, ['enc_blocks: block 1 is at resolution 4', 'has side 8']),
    ({'enc_blocks': '4x1'}, ['enc_blocks: block 0 is at resolution 4', 'has side 8']),
    ({'enc_blocks': '8x1,8d16,1x1'}, ['enc_blocks: block 1 pools side 8 by 16']),
    # W(S) must be W0, and widths must not decrease from fine to coarse.
    ({'custom_width_str': '8:16'}, ['custom_width_str gives width 16 at the image size 8']),
    ({'custom_width_str': '4:4'}, ['custom_width_str: width 4 at 4 is less than 8 at 8']),
    # The decoder: resolutions that the encoder provides, mixins that divide and exist, the end.
    ({'dec_blocks': '1x1,2m1,8m2'}, ['dec_blocks: block 1 is at resolution 2', '[1, 4, 8]']),
    (
      {'image_size': 12, 'enc_blocks': '12d2,6x1,6d6,1x1', 'dec_blocks': '1x1,6m1,12m5'},
      ['dec_blocks: block 2: 12 is not a multiple of mixin 5'],
    ),
    ({'dec_blocks': '1x1,8m4,8x1'}, ['dec_blocks: block 1 mixes in resolution 4']),
    ({'dec_blocks': '1x1,4m1,4x1'}, ['dec_blocks ends at resolution 4', 'image size 8']),
    # Something to start from.
    ({'no_bias_above': 0}, ['model.no_bias_above=0 leaves no learned start map', 'at least 1']),
  ],
  ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_refused(fields, messages):
  with pytest.raises(UserError) as caught:
    dataclasses.replace(MODEL, **SOUND | fields)
  for message in messages:
    assert message in str(caught.value)
