"""What every stage's config has, and what it is where a stage says nothing."""

from ml_collections import ConfigDict

# How BAGEL samples when it edits.
BAGEL_SAMPLING = {
  'points': 50,
  'shift': 3.0,
  'guidance': {
    'text': 4.0,
    'image': 2.0,
    'interval': (0.0, 1.0),
    'renorm': 'text_channel',
    'renorm_min': 0.0,
  },
}


def default_config() -> ConfigDict:
  """A config without a stage: configs/*.py add what is their own."""
  config = ConfigDict()
  config.stage = ''
  config.model = ''
  config.store = ''
  config.init_from = ''  # a workdir whose parameters training starts from
  config.init_step = 'newest'  # or 'best', or a step
  config.seed = 0

  # What is asked, and how it becomes tokens.
  config.tokenizer = 'project'
  config.tasks = {}
  config.first_tasks = {}  # the shares among the first examples
  config.first_examples = 0
  config.bagel_files = {}  # BAGEL's own formats (docs/data.md)
  config.scenes = {}  # drawn scenes instead of slices (docs/base.md)
  config.routes = ()  # empty = all
  # (regular expression of a route, how often its pairs are synthesised).
  config.route_weights = ()  # the first that matches; else 1
  config.neighbours = 3
  config.image = {'vit_side': 64, 'vae_side': 64}
  config.capacity = {'und': 0, 'gen': 0, 'vit': 0, 'images': 0}
  config.dropout = {'text': 0.0, 'vae': 0.0, 'vit': 0.0}
  config.augment = {'mirror': 0.0, 'warp': 0.0, 'noise': 0.0}  # in training

  # A batch: rows from so many streams, which processes share out.
  config.rows = 4
  config.streams = 4
  config.packing_bins = 16
  config.reader_threads = 2

  # What trains: (regular expression, learning-rate multiplier); and how.
  config.trainable = ()
  config.objective = {}
  # How slices are synthesised afterwards, after Stage I too (zero-shot). A weak
  # model scores highest with one step, which predicts the mean.
  config.sampling = {
    'points': 2,
    'shift': 1.0,
    'guidance': {
      'text': 1.0,
      'image': 1.0,
      'interval': (0.0, 1.0),
      'renorm': 'global',
      'renorm_min': 0.0,
    },
  }
  config.steps = 1
  config.optimizer = 'muon'
  config.learning_rate = 1e-3
  config.warmup = 0
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.99, 1e-8
  config.weight_decay = 0.0
  config.clip = 1.0
  config.ema = 0.0
  config.max_bad_steps = 10  # in a row that are skipped, not being finite

  config.mesh = (-1, 1, 1)  # data, fsdp, tensor
  config.compute = {  # models.compute.Compute
    'dtype': 'bfloat16',
    'remat': 'full',
    'attention': '',  # an implementation's name; '' = the platform's own
    'unroll': 1,
  }

  config.log_every = 50
  config.val_every = 500
  config.val_batches = 8
  config.checkpoint_every = 1000
  config.keep = 2  # the newest so many checkpoints
  config.keep_every = 0  # and those of every so many steps; 0 = no others
  config.best = ''  # and the best by a metric such as val/loss
  config.profile = {'start': 0, 'steps': 0}  # these, for the profiler
  return config
