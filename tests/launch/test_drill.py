"""The drill of launch/drill.sh, with few kills."""

import pytest

from tests import drill

pytestmark = [pytest.mark.slow, pytest.mark.launch]


@pytest.mark.parametrize('kills, counts', [(5, [2]), (2, [2, 1])])
def test_nothing_is_lost(kills, counts, data_root, tmp_path):
  hits = drill.run(kills, 0, counts, 900, tmp_path, str(data_root))
  # Each moment is met once in five kills; saves and evaluations are short.
  assert sum(hits.values()) >= kills - 1
