"""The data sets that can be built: name -> module, imported only when it is asked for.

A builder module has a docstring whose first line describes the set, `ABOUT`, a
`data_prep.request.About`, and one function, `load(request) -> data_prep.contents.Contents`, where
`request` is a `data_prep.request.Request`. A module that builds several sets of one kind (sizes)
has `ABOUT` as a mapping from the name of the set.
"""

BUILDERS = {
  'mnist': 'data_prep.builders.mnist',
  'binarized_mnist': 'data_prep.builders.binarized_mnist',
  'cifar10': 'data_prep.builders.cifar10',
  'imagenet32': 'data_prep.builders.imagenet',
  'imagenet64': 'data_prep.builders.imagenet',
  'imagenet32_box': 'data_prep.builders.imagenet_box',
  'imagenet64_box': 'data_prep.builders.imagenet_box',
  'celeba64': 'data_prep.builders.celeba64',
  'celebahq256': 'data_prep.builders.celebahq',
  'celebahq1024': 'data_prep.builders.celebahq',
  'ffhq256': 'data_prep.builders.ffhq',
  'ffhq1024': 'data_prep.builders.ffhq',
  'image_folder': 'data_prep.builders.image_folder',
  'minerl': 'data_prep.builders.cwvae_videos',
  'mazes': 'data_prep.builders.cwvae_videos',
  'moving_mnist': 'data_prep.builders.cwvae_videos',
  'moving_mnist20': 'data_prep.builders.moving_mnist20',
  'video_folder': 'data_prep.builders.video_folder',
  'tetrominoes': 'data_prep.builders.multi_object',
  'multi_dsprites': 'data_prep.builders.multi_object',
  'clevr6': 'data_prep.builders.multi_object',
  'clevr10': 'data_prep.builders.multi_object',
  'clevrtex': 'data_prep.builders.clevrtex',
  'demo_mnist': 'data_prep.builders.demo_mnist',
  'demo_natural32': 'data_prep.builders.demo_natural',
  'demo_natural64': 'data_prep.builders.demo_natural',
  'demo_photos32': 'data_prep.builders.demo_photos',
  'demo_photos64': 'data_prep.builders.demo_photos',
  'demo_photos256': 'data_prep.builders.demo_photos',
  'demo_moving_mnist': 'data_prep.builders.demo_moving_mnist',
  'demo_mazes': 'data_prep.builders.demo_mazes',
  'demo_minerl': 'data_prep.builders.demo_minerl',
  'demo_tetrominoes': 'data_prep.builders.demo_tetrominoes',
  'demo_multi_dsprites': 'data_prep.builders.demo_multi_dsprites',
  'demo_clevr6': 'data_prep.builders.demo_clevr',
  'demo_clevr10': 'data_prep.builders.demo_clevr',
  'demo_clevrtex': 'data_prep.builders.demo_clevr',
}
ALIASES = {'mmnist': 'moving_mnist'}
