"""The data sets that can be built: name -> module, imported only when it is asked for.

A builder module has a docstring whose first line describes the set, and one function,
`load() -> data_prep.contents.Contents`.
"""

BUILDERS = {
  'demo_mnist': 'data_prep.builders.demo_mnist',
  'demo_natural32': 'data_prep.builders.demo_natural32',
}
