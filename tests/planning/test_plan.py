"""Planning without a TPU compiler: counts, parsed programs, batch search, messages."""

import dataclasses

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10
from hvae_tpu import models
from hvae_tpu.errors import UserError
from hvae_tpu.modes import plan as mode
from hvae_tpu.planning import chips, hlo, programs, search, work
from hvae_tpu.planning.analysis import Analysis, Compiled, _too_large, _without_jax_cache
from hvae_tpu.planning.plan import Plan
from tests.support import tiny

GIB = 2**30
SETTINGS = {'precision': 'highest', 'remat': 'blocks'}


def flops(function, *arguments) -> float:
  return work.count(jax.make_jaxpr(function)(*arguments)).flops


def test_products_are_counted():
  a, b = np.ones((3, 4, 5), np.float32), np.ones((3, 5, 7), np.float32)
  counted = work.count(jax.make_jaxpr(jnp.matmul)(a, b))
  assert counted.flops == 2 * 3 * 4 * 5 * 7
  assert counted.bytes == 4 * (a.size + b.size + 3 * 4 * 7)


def conv(x, kernel, stride=1, groups=1):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def test_convolutions_and_their_gradients_cost_the_same():
  x, kernel = np.ones((2, 8, 8, 6), np.float32), np.ones((3, 3, 6, 10), np.float32)
  once = 2 * 2 * 8 * 8 * 9 * 6 * 10
  assert flops(conv, x, kernel) == once
  loss = lambda x, kernel: conv(x, kernel).sum()
  assert flops(jax.value_and_grad(loss, (0, 1)), x, kernel) == 3 * once


def test_strides_and_groups():
  x = np.ones((2, 8, 8, 6), np.float32)
  half = lambda x, kernel: conv(x, kernel, stride=2)
  once = 2 * 2 * 4 * 4 * 4 * 6 * 10
  kernel = np.ones((2, 2, 6, 10), np.float32)
  assert flops(half, x, kernel) == once
  # The gradient of the input is over a dilated picture; its zeros are not counted.
  assert flops(jax.grad(lambda x, k: half(x, k).sum()), x, kernel) == 2 * once
  depthwise = lambda x, kernel: conv(x, kernel, groups=6)
  each = np.ones((3, 3, 1, 6), np.float32)
  assert flops(depthwise, x, each) == 2 * 2 * 8 * 8 * 9 * 6
  assert (
    flops(jax.grad(lambda x, k: depthwise(x, k).sum(), 1), x, each) == 2 * 2 * 2 * 8 * 8 * 9 * 6
  )


def test_a_loop_counts_as_often_as_it_runs():
  w = np.ones((4, 4), np.float32)
  looped = lambda w: jax.lax.scan(lambda c, _: (c @ w, None), w, None, length=5)[0]
  assert flops(looped, w) == 5 * flops(lambda w: w @ w, w)


@pytest.mark.slow
@pytest.mark.parametrize('name', tiny.SYSTEMS)
def test_a_scanned_model_counts_as_the_unrolled_one(name):
  """Rematerialisation adds the forward pass of blocks, a small part of a video model."""
  model = tiny.SYSTEMS[name].model
  if not hasattr(model, 'unroll'):
    pytest.skip('this system has no runs of blocks')
  batch = tiny.batch(name)
  params, state = jax.eval_shape(model.init, jax.random.key(0), batch)

  def gradient(**fields):
    changed = dataclasses.replace(model, **fields)
    loss = lambda p, s, k: changed.loss(p, s, batch, rng=k, step=jnp.int32(0), train=True)
    return flops(jax.value_and_grad(loss, has_aux=True), params, state, jax.random.key(0))

  assert gradient(unroll='1') == pytest.approx(gradient(unroll='full'), rel=1e-9)
  again = gradient(unroll='1', remat='blocks') / gradient(unroll='1')
  assert 1.002 < again <= 4 / 3


TEXT = """HloModule jit_step

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}

%all-reduce-scatter.3 (input: f32[16,4]) -> f32[4,4] {
  %input = f32[16,4]{1,0} parameter(0)
  %all-reduce.9 = f32[16,4]{1,0} all-reduce(%input), to_apply=%add.1
  ROOT %slice = f32[4,4]{1,0} dynamic-slice(%all-reduce.9), dynamic_slice_sizes={4,4}
}

%body.2 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]) parameter(0)
  %x = f32[8]{0:T(128)} get-tuple-element(%p), index=1
  %y = f32[8]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}, b={"estimated_cycles":"10"}
  %c = f32[2,2]{1,0} convolution(%y, %y), operand_precision={highest,highest}
  ROOT %t = (s32[], f32[8]) tuple(%i, %y)
}

%cond.2 (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]) parameter(0)
  %limit = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main.7 (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  %while.1 = (s32[], f32[8]{0}) while(%start), condition=%cond.2, body=%body.2
  %gather = (bf16[4]{0}, bf16[16]{0}) all-gather-start(%q), replica_groups=[1,4]<=[4]
  %fused = (f32[4,4]{1,0}, /*index=1*/f32[2]{0}) fusion(%q), calls=%all-reduce-scatter.3
  %c = f32[2,2]{1,0} convolution(%q, %q), b={"estimated_cycles":"7"}
  ROOT %r = f32[8]{0} get-tuple-element(%while.1), index=1
}
"""


def test_collectives_count_as_often_as_their_loop_runs():
  traffic = hlo.Program(TEXT, 4).collectives()
  assert traffic == {
    'all-reduce': hlo.Traffic(5, 5 * 32.0, 5 * 32.0),  # 2 (2 - 1) / 2 of it, among two
    'all-gather': hlo.Traffic(1, 32.0, 24.0),
    'reduce-scatter': hlo.Traffic(1, 4 * 72.0, 4 * 72.0 * 3 / 4),
  }


def test_a_fused_reduce_scatter_counts_its_own_group():
  """Two groups of two, of the four devices."""
  inner = 'all-reduce(%input), to_apply'
  assert inner in TEXT
  text = TEXT.replace(inner, 'all-reduce(%input), replica_groups={{0,1},{2,3}}, to_apply')
  traffic = hlo.Program(text, 4).collectives()['reduce-scatter']
  assert traffic == hlo.Traffic(1, 2 * 72.0, 72.0)


def test_collectives_of_several_arrays_at_once():
  line = '%gather = (bf16[4]{0}, bf16[16]{0}) all-gather-start(%q)'
  assert line in TEXT
  two = '%gather = ((bf16[4]{0}, f32[2]{0}), (bf16[16]{0}, f32[8]{0}), u32[]) all-gather-start(%q)'
  assert hlo.Program(TEXT.replace(line, two), 4).collectives()['all-gather'].bytes == 32 + 32
  both = '%sum = (f32[4]{0}, f32[6]{0}) all-reduce-start(%q)'
  traffic = hlo.Program(TEXT.replace(line, both), 4).collectives()['all-reduce']
  assert traffic.bytes == 5 * 32 + 40


@pytest.mark.parametrize(
  ('message', 'needed'),
  [
    ('HLO temporaries (32.07G) exceeds available HBM (15.75G).', 32.07 * GIB),
    ('Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm. Exceeded', 20.5 * GIB),
  ],
)
def test_a_program_beyond_the_memory_is_recorded(message, needed):
  compiled = _too_large(RuntimeError(f'RESOURCE_EXHAUSTED: {message}'), 'v5e:2x2')
  assert not compiled.fits and compiled.peak == needed


def test_other_failures_of_the_compiler_are_reported():
  error = RuntimeError(
    'RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 20M of 16M'
  )
  with pytest.raises(UserError, match='the compiler for v5e:2x2 failed: .* memory space vmem'):
    _too_large(error, 'v5e:2x2')


def test_planned_programs_are_not_in_the_cache_of_jax(tmp_path):
  usual = jax.config.jax_compilation_cache_dir
  lowered = lambda power: jax.jit(lambda x: x**power).lower(1.0)
  try:
    jax.config.update('jax_compilation_cache_dir', str(tmp_path))
    compilation_cache.reset_cache()
    lowered(31).compile()
    before = set(tmp_path.iterdir())
    with _without_jax_cache():
      lowered(37).compile()
    assert before and set(tmp_path.iterdir()) == before
    lowered(41).compile()
    assert set(tmp_path.iterdir()) > before
  finally:
    jax.config.update('jax_compilation_cache_dir', usual)
    compilation_cache.reset_cache()


def test_cycles_and_precisions():
  program = hlo.Program(TEXT, 4)
  assert program.cycles() == 5 * 10 + 7
  assert program.precisions() == {'highest': 1, 'default': 1}


def analysis(batch_size: int, peak: float, hbm: float = 16 * GIB) -> Analysis:
  return Analysis(1000, 1e6, batch_size, 4, work.Work(1e12, 1e9), Compiled(peak <= hbm, peak))


@pytest.mark.parametrize(
  ('base', 'slope', 'expected', 'compilations'),
  [(2, 0.5, 27, 3), (2, 6, 2, 3), (2, 12, 1, 3), (20, 1, 0, 1), (1, 1e-3, 64, 3), (15, 0.2, 4, 2)],
)
def test_largest_batch_on_a_line(base, slope, expected, compilations):
  """Numbers are per device; memory is affine in the batch size."""
  seen = []

  def run(batch_size):
    seen.append(batch_size)
    return analysis(batch_size, (base + slope * batch_size / 4) * GIB)

  largest = search.largest_batch(run, 4, 16 * GIB, 256)
  assert largest.batch_size == 4 * expected
  assert largest.compilations == compilations == len(set(seen))


def test_a_line_that_bends_is_reported():
  run = lambda size: analysis(size, (2 + (size / 4) ** 2 / 8) * GIB)
  largest = search.largest_batch(run, 4, 16 * GIB, 256)
  assert largest.batch_size == 16 and largest.bound > 16 and largest.compilations == 3


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', '--topology is empty'),
    ('v5e-8', "'v5e-8' must be chip:shape"),
    ('v5e:2x2,h100:8', "'h100:8' must be chip:shape"),
  ],
)
def test_wrong_topologies_are_refused(text, message):
  with pytest.raises(UserError, match=message):
    chips.split(text)


def test_without_the_compiler(monkeypatch, tmp_path):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"pip install -e '\.\[tpu\]'"):
    mode.run(cifar10.get_config('vdvae,debug'), tmp_path, 'latest')
  assert not list(tmp_path.iterdir())


def test_a_plan_needs_a_program(tmp_path):
  config = cifar10.get_config('vdvae,debug')
  config.plan.programs = ()
  with pytest.raises(UserError, match='config.plan.programs=.* names no program'):
    mode.run(config, tmp_path, 'latest')


def test_unknown_programs_are_refused(tmp_path):
  config = cifar10.get_config('vdvae,debug')
  config.plan.programs = ('sample',)
  with pytest.raises(
    UserError, match=r"programs=\('sample',\) must have no items but 'train', 'eval'"
  ):
    mode.run(config, tmp_path, 'latest')


def test_shapes_without_a_data_set():
  config = cifar10.get_config('vdvae,debug')
  assert programs.batch_shapes(config, 6, 0)['image'].shape == (6, 32, 32, 3)
  config.data.fields = ('image', 'factor_x')
  with pytest.raises(UserError, match='config.data.fields has factor_x'):
    programs.batch_shapes(config, 6, 0)
  config.data.fields = ('video',)
  assert programs.batch_shapes(config, 6, 5)['video'].shape == (6, 5, 32, 32, 3)
  with pytest.raises(UserError, match='config.data.seq_len=0'):
    programs.batch_shapes(config, 6, 0)


@pytest.mark.slow
def test_traces_are_those_of_the_real_step():
  """Lowers the train and eval programs for the host."""
  config = cifar10.get_config('vdvae,debug')
  traced = programs.train_program(config, jax.devices()[:1])
  assert traced.batch_size == config.train.batch_size
  model = models.create(config.model.to_dict(), 'cpu')
  assert traced.model == model
  assert traced.trace.lower().out_info[1]['loss'].shape == ()
  evaluated = programs.eval_program(config, jax.devices()[:1])
  assert evaluated.trace.lower().out_info[1].shape == ()
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  # The average, two moments and their step.
  assert count(evaluated.beside) == 3 * count(evaluated.state.params) + 1


def plan(peak: float, **fields) -> Plan:
  train = analysis(8, peak)
  compiled = dataclasses.replace(
    train.compiled,
    arguments=0.5 * GIB,
    collectives={'all-reduce': (2, 4e6, 6e6)},
    precisions={'highest': 3},
    cycles=3e6,
  )
  return Plan(
    name='tiny',
    topology='v5e:2x2',
    settings=SETTINGS,
    num_steps=86_400,
    analyses={'train': dataclasses.replace(train, compiled=compiled)},
    efficiency=0.1,
    **fields,
  )


def test_estimates():
  made = plan(2 * GIB)
  estimate = made.estimate('train')
  assert estimate.compute == pytest.approx(6 * 1e12 / 4 / 197e12)  # six passes
  assert estimate.memory == pytest.approx((1e9 / 4 + 2e6) / 819e9)
  assert estimate.links == pytest.approx(6e6 / 200e9)
  assert estimate.roofline == estimate.compute and estimate.planned == pytest.approx(
    10 * estimate.compute
  )
  assert estimate.cycles == pytest.approx(2e-3)
  assert made.days() == pytest.approx((estimate.roofline, estimate.planned))
  text = made.text()
  assert 'arguments 0.50, temporaries 0.00 (1.50 at a time)' in text
  assert 'fits: peak 2.00 GiB' in text and '3 of 3 convolutions and products at highest' in text
  assert 'estimates, nothing was run' in text and made.json()['fits'] is True


def test_bfloat16_operands_take_one_pass():
  made = plan(2 * GIB)
  half = made._replace(settings={**SETTINGS, 'dtype': 'bfloat16'})
  assert half.estimate('train').compute == pytest.approx(made.estimate('train').compute / 6)


def test_a_program_that_does_not_fit_is_an_answer():
  made = plan(20 * GIB)
  assert not made.fits and 'DOES NOT FIT: needs 20.00 GiB' in made.text()


def test_evaluations_need_room_beside_the_train_state():
  made = plan(2 * GIB)
  evaluation = dataclasses.replace(made.analyses['train'], beside=13 * GIB)
  assert made._replace(analyses={'eval': evaluation}).fits
  evaluation = dataclasses.replace(evaluation, beside=14 * GIB)
  larger = made._replace(analyses={'eval': evaluation})
  assert not larger.fits
  assert 'DOES NOT FIT: peak 2.00 GiB a device, and 14.00 of the train state' in larger.text()


def test_batches_are_checked_before_anything_is_compiled():
  config = cifar10.get_config('vdvae,debug')
  config.train.batch_size, config.evals.batch_size = 16, 4
  with pytest.raises(UserError, match='config.evals.batch_size=4 must be a positive multiple'):
    programs.check(config, jax.devices())
  config.train.batch_size = 4
  with pytest.raises(UserError, match='config.train.batch_size=4 must be a positive multiple'):
    programs.check(config, jax.devices())


def test_peak_on_more_devices():
  """The state stays the same; the rest is divided among the devices."""
  assert analysis(8, 1e6 + 8e9).peak_on(16) == pytest.approx(1e6 + 2e9)
