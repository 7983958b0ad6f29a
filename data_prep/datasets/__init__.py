"""The data sets that can be built: name -> module, imported only when it is asked for.

A builder module has a docstring whose first line describes the set, `ABOUT`, a
`data_prep.core.request.About`, and a function `load(request)`, which takes a
`data_prep.core.request.Request` and returns `data_prep.core.contents.Contents`. In a module that
builds several sets of one kind (sizes), `ABOUT` is a mapping from the name of the set.
"""

_MODULES = {  # module -> the data sets that it builds
  'mnist': ('mnist',),
  'fashion_mnist': ('fashion_mnist',),
  'binarized_mnist': ('binarized_mnist',),
  'cifar10': ('cifar10',),
  'imagenet': ('imagenet32', 'imagenet64'),
  'imagenet_box': ('imagenet32_box', 'imagenet64_box'),
  'celeba64': ('celeba64',),
  'celebahq': ('celebahq256', 'celebahq1024'),
  'ffhq': ('ffhq256', 'ffhq1024'),
  'image_folder': ('image_folder',),
  'cwvae_videos': ('minerl', 'mazes', 'moving_mnist'),
  'moving_mnist20': ('moving_mnist20',),
  'video_folder': ('video_folder',),
  'multi_object': ('tetrominoes', 'multi_dsprites', 'clevr6', 'clevr10'),
  'clevrtex': ('clevrtex',),
  'demo_mnist': ('demo_mnist',),
  'demo_natural': ('demo_natural32', 'demo_natural64'),
  'demo_photos': ('demo_photos32', 'demo_photos64', 'demo_photos256'),
  'demo_moving_mnist': ('demo_moving_mnist',),
  'demo_mazes': ('demo_mazes',),
  'demo_minerl': ('demo_minerl',),
  'demo_tetrominoes': ('demo_tetrominoes',),
  'demo_multi_dsprites': ('demo_multi_dsprites',),
  'demo_clevr': ('demo_clevr6', 'demo_clevr10', 'demo_clevrtex'),
}
BUILDERS = {
  name: f'data_prep.datasets.{module}' for module, names in _MODULES.items() for name in names
}
ALIASES = {'mmnist': 'moving_mnist'}
