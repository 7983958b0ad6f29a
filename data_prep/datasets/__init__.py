"""The data sets that can be built: name -> module, imported only when it is asked for.

A builder module has a docstring whose first line describes the set, `ABOUT`, a
`data_prep.request.About`, and one function, `load(request) -> data_prep.contents.Contents`, where
`request` is a `data_prep.request.Request`. A module that builds several sets of one kind (sizes)
has `ABOUT` as a mapping from the name of the set.
"""

BUILDERS = {
  'mnist': 'data_prep.datasets.mnist',
  'binarized_mnist': 'data_prep.datasets.binarized_mnist',
  'cifar10': 'data_prep.datasets.cifar10',
  'imagenet32': 'data_prep.datasets.imagenet',
  'imagenet64': 'data_prep.datasets.imagenet',
  'imagenet32_box': 'data_prep.datasets.imagenet_box',
  'imagenet64_box': 'data_prep.datasets.imagenet_box',
  'celeba64': 'data_prep.datasets.celeba64',
  'celebahq256': 'data_prep.datasets.celebahq',
  'celebahq1024': 'data_prep.datasets.celebahq',
  'ffhq256': 'data_prep.datasets.ffhq',
  'ffhq1024': 'data_prep.datasets.ffhq',
  'image_folder': 'data_prep.datasets.image_folder',
  'minerl': 'data_prep.datasets.cwvae_videos',
  'mazes': 'data_prep.datasets.cwvae_videos',
  'moving_mnist': 'data_prep.datasets.cwvae_videos',
  'moving_mnist20': 'data_prep.datasets.moving_mnist20',
  'video_folder': 'data_prep.datasets.video_folder',
  'tetrominoes': 'data_prep.datasets.multi_object',
  'multi_dsprites': 'data_prep.datasets.multi_object',
  'clevr6': 'data_prep.datasets.multi_object',
  'clevr10': 'data_prep.datasets.multi_object',
  'clevrtex': 'data_prep.datasets.clevrtex',
  'demo_mnist': 'data_prep.datasets.demo_mnist',
  'demo_natural32': 'data_prep.datasets.demo_natural',
  'demo_natural64': 'data_prep.datasets.demo_natural',
  'demo_photos32': 'data_prep.datasets.demo_photos',
  'demo_photos64': 'data_prep.datasets.demo_photos',
  'demo_photos256': 'data_prep.datasets.demo_photos',
  'demo_moving_mnist': 'data_prep.datasets.demo_moving_mnist',
  'demo_mazes': 'data_prep.datasets.demo_mazes',
  'demo_minerl': 'data_prep.datasets.demo_minerl',
  'demo_tetrominoes': 'data_prep.datasets.demo_tetrominoes',
  'demo_multi_dsprites': 'data_prep.datasets.demo_multi_dsprites',
  'demo_clevr6': 'data_prep.datasets.demo_clevr',
  'demo_clevr10': 'data_prep.datasets.demo_clevr',
  'demo_clevrtex': 'data_prep.datasets.demo_clevr',
}
ALIASES = {'mmnist': 'moving_mnist'}
