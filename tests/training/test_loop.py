"""The training loop with a counter as its state: when it logs, evaluates, saves and ends."""

import itertools
import types

import numpy as np
import pytest

from hvae_tpu.devices.interruption import Interrupted
from hvae_tpu.errors import UserError
from hvae_tpu.training.loop import loop

TRAIN = dict(num_steps=7, log_every=3, save_every=4, batch_size=2, progress_metrics=('loss',))
TRAIN |= dict(max_skipped_in_row=3, skip_threshold=9.0)


class Interruption:
  """A signal that comes before poll number `at`."""

  def __init__(self, at=None):
    self.at, self.polls, self.requested = at, 0, False

  def poll(self):
    self.polls += 1
    self.requested = self.requested or self.polls == self.at


class Run:
  """A run that records the actions of the loop, as (name, step, ...)."""

  def __init__(self, *, loss=lambda step: 1.0, skipped=lambda step: 0, **changes):
    self.events, self.loss, self.skipped = [], loss, skipped
    self.train = types.SimpleNamespace(**TRAIN | changes)

  def step(self, state, batch):
    assert batch == state
    names = ('loss', 'grad_norm', 'clock', 'skipped', 'skipped_in_row')
    values = (self.loss(state), 2.0, state, 0, self.skipped(state))
    return state + 1, dict(zip(names, map(np.float32, values), strict=True))

  def evaluation(self, name, every, result=5.0, error=None):
    def run(state):
      self.events.append((name, state))
      if error:
        raise error
      return {'bpd': result}

    return name, every, run

  def loop(self, *evaluations, start=0, interruption=None):
    record = lambda name: lambda step, *rest: self.events.append((name, step, *rest))
    return loop(
      start,
      self.step,
      itertools.count(start),
      self.train,
      start=start,
      evaluations=list(evaluations),
      save=record('save'),
      diagnose=record('diagnose'),
      writer=types.SimpleNamespace(
        scalars=lambda step, prefix, numbers: self.events.append((prefix, step, numbers['loss'])),
        write=lambda step, name, results: None,
      ),
      interruption=interruption or Interruption(),
    )


def test_everything_is_done_when_it_is_due_and_at_the_end(capsys):
  run = Run(loss=float)
  assert run.loop(run.evaluation('elbo', 2), run.evaluation('off', 0)) == 7
  results = {'elbo/bpd': 5.0}
  assert run.events == [
    ('elbo', 2),
    ('train', 3, 1.0),
    *(('elbo', 4), ('save', 4, 4, results)),
    *(('train', 6, 4.0), ('elbo', 6)),
    *(('train', 7, 6.0), ('elbo', 7), ('save', 7, 7, results)),
  ]
  assert capsys.readouterr().out.startswith('step 3/7  loss 1  ')


def test_a_resumed_loop_goes_on():
  run = Run(save_every=0)
  assert run.loop(start=5) == 7
  assert [event[:2] for event in run.events] == [('train', 6), ('train', 7), ('save', 7)]


def test_a_failed_evaluation_is_raised_after_the_state_is_saved():
  run, error = Run(), ValueError('of the second one')
  with pytest.raises(ValueError, match='of the second one'):
    run.loop(run.evaluation('elbo', 2), run.evaluation('ssim', 2, error=error))
  assert run.events == [('elbo', 2), ('ssim', 2), ('save', 2, 2, {'elbo/bpd': 5.0})]


def test_too_many_skipped_updates_end_the_run_with_its_state_saved():
  run = Run(skipped=lambda step: step)
  with pytest.raises(UserError, match='the last 5 updates were skipped'):
    run.loop()
  assert run.events[-1] == ('save', 6, 6, {})


def test_the_first_loss_that_is_not_finite_is_diagnosed_at_the_next_log():
  run = Run(loss=lambda step: np.nan if step in (4, 5) else 1.0)
  run.loop()
  assert [event for event in run.events if event[0] == 'diagnose'] == [('diagnose', 4, 4, 6)]


def test_an_interrupted_loop_saves_and_ends():
  run = Run()
  assert run.loop(run.evaluation('elbo', 1), interruption=Interruption(at=2)) == 2
  assert run.events == [('elbo', 1), ('save', 2, 2, {})]


def test_an_interrupted_evaluation_is_left_out():
  run, interruption = Run(), Interruption(at=3)
  run.loop(run.evaluation('elbo', 2, error=Interrupted()), interruption=interruption)
  assert run.events[-1] == ('save', 3, 3, {}) and interruption.polls == 3
