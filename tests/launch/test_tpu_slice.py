"""launch/tpu_slice.sh: slices that are requested, lost, deleted, and hard to reach."""

import pytest

from tests.support.tpu_pod import FLAGS

pytestmark = pytest.mark.launch


def test_preempted_twice(cloud):
  preempted = dict(worker=0, preempt=True)
  cloud.troubles(preempted | dict(at=3), preempted | dict(at=6))
  code, text = cloud.run('run', *FLAGS, SPOT='1')
  assert code == 0, text
  assert text.count('pod was preempted or is gone') == 2
  assert text.count('pod is PREEMPTED') == 2
  assert len(cloud.calls('create')) == 3 and len(cloud.calls('delete')) == 2
  assert all('--spot' in call for call in cloud.calls('create'))
  assert cloud.steps() == list(range(1, 9))
  assert 'from step 0' not in cloud.log()  # it has resumed


def test_preempted_with_notice(cloud):
  cloud.troubles(dict(worker=0, at=3, preempt=True, notice=1.5))
  code, text = cloud.run('run', *FLAGS, SPOT='1')
  assert code == 0, text
  assert 'pod was preempted or is gone; last saved step: 2' in text
  assert len(cloud.calls('create')) == 2 and cloud.steps() == list(range(1, 9))


@pytest.mark.parametrize('when', ['tpu-vm scp', 'tpu_worker.sh prepare', 'tpu_worker.sh start'])
def test_preempted_before_the_training_starts(cloud, when):
  cloud.rules(dict(when=when, do='preempt'))
  code, text = cloud.run('run', *FLAGS, SPOT='1')
  assert code == 0, text
  assert 'pod was preempted before the training had started' in text
  assert len(cloud.calls('create')) == 2 and cloud.steps() == list(range(1, 9))


def test_queued_and_suspended(cloud):
  cloud.troubles(dict(worker=1, at=3, preempt=True))
  variables = dict(QUEUED='1', SPOT='1', VALID_UNTIL='6h', PROJECT='my-project', DELETE_AT_END='1')
  code, text = cloud.run('run', *FLAGS, **variables)
  assert code == 0, text
  assert cloud.calls('create') == 2 * [
    'compute tpus queued-resources create pod --node-id=pod --accelerator-type=v5litepod-16 '
    '--runtime-version=v2-alpha-tpuv5-lite --spot --valid-until-duration=6h --zone=here-a '
    '--project=my-project --quiet'
  ]
  assert len(cloud.calls('queued-resources delete pod --force')) == 2
  assert not (cloud.folder / 'queued-resources').exists()


def test_queued_resource_is_deleted_whatever_the_shell_says(cloud):
  assert cloud.run('create', QUEUED='1')[0] == 0
  code, text = cloud.run('delete')
  assert code == 0 and 'pod is deleted' in text
  assert not (cloud.folder / 'queued-resources').exists()
  assert not (cloud.folder / 'tpu-vm').exists()


def test_slice_is_deleted_although_queued_resources_fail(cloud):
  cloud.run('create')
  cloud.rules(dict(when='queued-resources', do='fail', times=100))
  code, text = cloud.run('delete', ATTEMPTS='1')
  assert code == 1 and 'pod could not be deleted' in text
  assert not (cloud.folder / 'tpu-vm').exists()


@pytest.mark.parametrize('queued', ['0', '1'])
def test_delete_ends_a_run_that_follows(cloud, queued):
  cloud.pace(1)
  process = cloud.script('run', *FLAGS, QUEUED=queued)
  cloud.wait_for(lambda: cloud.calls('tpu_worker.sh status') and cloud.steps())
  assert cloud.run('delete')[0] == 0
  text = process.communicate(timeout=60)[0]
  assert process.returncode == 1 and 'pod has been deleted, so it is not created again' in text
  assert len(cloud.calls(' create ')) == 1


def test_delete_ends_a_run_that_waits_in_the_queue(cloud):
  cloud.rules(dict(when='queued-resources create', do='wait'))
  process = cloud.script('run', *FLAGS, QUEUED='1')
  cloud.wait_for(lambda: len(cloud.calls('queued-resources describe')) > 2)
  assert cloud.run('delete')[0] == 0
  text = process.communicate(timeout=60)[0]
  assert process.returncode == 1 and 'pod has been deleted' in text
  assert len(cloud.calls(' create ')) == 1


def test_queued_resource_that_expires_is_not_requested_again(cloud):
  cloud.rules(dict(when='queued-resources create', do='wait', times=2))
  for number in (1, 2):  # the second start finds what the first one has left
    process = cloud.script('run', *FLAGS, QUEUED='1', VALID_UNTIL='6h')
    cloud.wait_for(lambda number=number: len(cloud.calls(' create ')) == number)
    cloud.wait_for((cloud.folder / 'queued-resources').exists)
    (cloud.folder / 'queued-resources').write_text('FAILED')
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and 'no machines within VALID_UNTIL=6h' in text, text
  assert len(cloud.calls(' create ')) == 2


def test_gcloud_that_fails_and_hangs_is_asked_again(cloud):
  cloud.rules(
    dict(when='tpu-vm create', do='fail'),
    dict(when='tpu-vm create', do='hang', skip=1),
    dict(when='tpu-vm scp', do='fail', times=2),
    dict(when='tpu-vm describe', do='fail', skip=2),
    dict(when='tpu_worker.sh start', do='fail'),
  )
  code, text = cloud.run('run', *FLAGS, TIMEOUT='8')
  assert code == 0, text
  assert len(cloud.calls('tpu-vm create')) >= 3 and len(cloud.calls('tpu-vm scp')) >= 3


@pytest.mark.parametrize(
  ('when', 'message'),
  [
    ('tpu-vm create', 'pod could not be created'),
    ('tpu-vm describe', 'The state of pod is unknown'),
    ('tpu_worker.sh prepare', 'The workers of pod could not be prepared'),
  ],
)
def test_gcloud_that_always_fails(cloud, when, message):
  cloud.rules(dict(when=when, do='fail', times=100))
  code, text = cloud.run('run', *FLAGS)
  assert code == 1 and message in text
  assert len(cloud.calls(when)) == 3


def test_lost_connection_is_not_a_preemption(cloud):
  cloud.rules(dict(when='tpu_worker.sh status', do='fail', times=3))
  code, text = cloud.run('run', *FLAGS)
  assert code == 0 and len(cloud.calls('create')) == 1, text
