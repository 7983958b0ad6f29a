"""Settings: fields of a section are checked by type, range and choice, in one place."""

import dataclasses
import math
from typing import Any

import pytest

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.settings import setting


@dataclasses.dataclass(frozen=True)
class Inner:
  size: int = 2


@dataclasses.dataclass(frozen=True)
class Section:
  count: int = setting(1, least=1, most=9)
  rate: float = setting(0.5, above=0, below=1)
  weight: float = setting(1.0, least=0, changeable=True)
  scale: float = setting(1.0, above=0)
  threshold: float = setting(math.inf, above=0, infinite=True)
  sizes: tuple[int, ...] = setting((1, 2), least=1)
  pairs: tuple[tuple[int, float], ...] = setting(((1, 0.5),), least=0)
  mode: str = setting('fast', choices=('fast', 'slow'))
  kinds: tuple[str, ...] = setting(('a',), choices=('a', 'b'))
  flag: bool = False
  limit: int | None = setting(None, least=1)
  either: float | str = 'auto'
  anything: Any = None


def check(**values) -> None:
  settings.checked(Section, values, 'config.part')


@pytest.mark.parametrize(
  'values',
  [
    {},
    {'count': 1, 'rate': 0.999, 'weight': 0, 'threshold': math.inf},
    {'count': 9, 'sizes': (), 'pairs': ()},
    {'sizes': [3, 4], 'pairs': [[1, 2.5], [3, 4]]},  # lists, as JSON has them
    {'limit': None, 'kinds': ('b', 'a')},
    {'kinds': ()},
    {'limit': 5, 'either': 0.5, 'anything': complex(1)},
    {'rate': 0.5, 'mode': 'slow', 'flag': True, 'either': 'b'},
  ],
  ids=str,
)
def test_accepted(values):
  check(**values)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    # Types.
    ({'count': 1.0}, 'config.part.count=1.0 must be a whole number'),
    ({'count': True}, 'config.part.count=True must be a whole number'),
    ({'count': '1'}, "config.part.count='1' must be a whole number"),
    ({'count': None}, 'config.part.count=None must be a whole number'),
    ({'rate': 'a'}, "config.part.rate='a' must be a number"),
    ({'mode': 3}, 'config.part.mode=3 must be a string'),
    ({'flag': 1}, 'config.part.flag=1 must be True or False'),
    ({'sizes': (1, 'a')}, "config.part.sizes=(1, 'a') must be a tuple, each item a whole number"),
    ({'sizes': 3}, 'config.part.sizes=3 must be a tuple, each item a whole number'),
    ({'kinds': 'a'}, "config.part.kinds='a' must be a tuple, each item a string"),
    ({'count': (1,)}, 'config.part.count=(1,) must be a whole number'),
    ({'limit': (1, 2)}, 'config.part.limit=(1, 2) must be a whole number'),
    ({'limit': 1.5}, 'config.part.limit=1.5 must be a whole number'),
    # Ranges: each end, in words.
    ({'count': 0}, 'config.part.count=0 must lie between 1 and 9'),
    ({'count': 10}, 'config.part.count=10 must lie between 1 and 9'),
    ({'rate': 0}, 'config.part.rate=0 must lie between 0 and 1, both excluded'),
    ({'rate': 1.0}, 'config.part.rate=1.0 must lie between 0 and 1, both excluded'),
    ({'weight': -1e-9}, 'config.part.weight=-1e-09 must not be negative'),
    ({'scale': 0.0}, 'config.part.scale=0.0 must be positive'),
    ({'limit': 0}, 'config.part.limit=0 must be at least 1'),
    ({'sizes': (2, 0)}, 'config.part.sizes=(2, 0) must be at least 1'),
    ({'pairs': ((1, -0.5),)}, 'config.part.pairs=((1, -0.5),) must not be negative'),
    # NaN and infinity.
    ({'weight': math.nan}, 'config.part.weight=nan must be a number'),
    ({'threshold': math.nan}, 'config.part.threshold=nan must be a number'),
    ({'pairs': ((1, math.nan),)}, 'config.part.pairs=((1, nan),) must be a number'),
    ({'either': math.nan}, 'config.part.either=nan must be a number'),
    ({'weight': math.inf}, 'config.part.weight=inf must be finite'),
    ({'scale': -math.inf}, 'config.part.scale=-inf must be finite'),
    ({'threshold': -math.inf}, 'config.part.threshold=-inf must be positive'),
    # Choices and names.
    ({'mode': 'best'}, "config.part.mode='best' must be one of 'fast', 'slow'"),
    ({'kinds': ('a', 'c')}, "config.part.kinds=('a', 'c') must have no items but 'a', 'b'"),
    ({'colour': 1}, 'config.part has colour, but may have anything, count, '),
  ],
  ids=str,
)
def test_refused(values, message):
  with pytest.raises(UserError) as caught:
    check(**values)
  assert message in str(caught.value)


def test_every_wrong_field_is_named():
  with pytest.raises(UserError) as caught:
    check(count=0, mode='best')
  assert 'config.part.count=0' in str(caught.value)
  assert "; config.part.mode='best'" in str(caught.value)


def test_values_become_an_instance():
  section = settings.checked(Section, {'sizes': [3], 'count': 2}, 'config.part')
  assert section == Section(sizes=(3,), count=2)


def test_changeable_fields():
  assert settings.changeable(Section) == {'weight'}


def test_defaults_are_a_section_of_a_config():
  @dataclasses.dataclass(frozen=True)
  class Outer:
    count: int = 1
    limit: int | None = None
    inner: Inner = Inner()

  values = settings.defaults(Outer)
  assert values['count'] == 1 and values['inner'] == {'size': 2}
  placeholder = values['limit']
  assert placeholder.get() is None and placeholder.get_type() is int
