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

# What an earlier small base called the looks of the modalities (training
# subjects, `python -m projects.small_base.first_looks`), no word twice; the
# regions in turn. The one that ships would pair some others (docs/base.md).
WORDS_OF_SCENES = (
  ('CBCT', 'depth'),
  ('CT', 'flat'),
  ('MRI', 'outline'),
  ('PET', 'glow'),
  ('T1 (MRI)', 'negative'),
  ('T1CE (MRI)', 'etched'),
  ('T2 (MRI)', 'frost'),
  ('FLAIR (MRI)', 'relief'),
  ('brain', 'nested'),
  ('pelvis', 'scattered'),
  ('whole-body', 'woven'),
  ('modality', 'style'),
)

# How often a small model synthesises the routes of phantoms; the others 1. CBCT
# is nearly CT, and 12 routes of one brain teach each other; a pelvis or a body
# has to be made out of little that is alike (docs/base.md).
PHANTOM_ROUTE_WEIGHTS = (
  (r'.*cbct.*', 0.4),
  (r'brats_.*', 0.6),
  (r'pelvis_.*', 3.0),
  (r'whole_body_.*', 2.0),
)


def default_config() -> ConfigDict:
  """A config without a stage: configs/*.py add what is their own."""
  config = ConfigDict()
  config.stage = ''
  config.model = ''
  # Python modules that register tasks, stages, modalities or metrics; they are
  # imported before anything is built.
  config.modules = ()
  config.store = ''
  config.init_from = ''  # a workdir whose parameters training starts from
  config.init_step = 'newest'  # or 'best', or a step
  config.new_words = ()  # (word, the word of init_from that it starts as)
  config.seed = 0

  # What is asked, and how it becomes tokens.
  config.tokenizer = 'project'
  config.tasks = {}  # name in tasks.registry -> share of the examples
  config.prompts = 'paper'  # the wordings: paper or short (tasks/prompts.py)
  config.bagel_files = {}  # BAGEL's own formats (docs/data.md)
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
  config.remat = ''  # none, dots or full; '' = the preset's own
  config.attention = ''  # an implementation's name; '' = the platform's own

  config.log_every = 50
  config.val_every = 500
  config.val_batches = 8
  config.checkpoint_every = 1000
  config.keep = 2  # the newest so many checkpoints
  config.keep_every = 0  # and those of every so many steps; 0 = no others
  config.best = ''  # and the best by a metric such as val/loss
  config.profile = {'start': 0, 'steps': 0}  # these, for the profiler
  return config
