"""The keys of a config. Values are those of BAGEL's released fine-tuning."""

from ml_collections import ConfigDict

# How BAGEL samples when it edits an image.
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
  """Every key but those of a stage, which configs/*.py set."""
  config = ConfigDict()
  config.stage = ''  # the objective: autoencoder, gau, ucg or joint
  # Python modules that register tasks, objectives, modalities or metrics.
  config.modules = ()
  config.seed = 0

  # The model's shape: a preset, or 'init_from' for whatever that holds; and how
  # it is computed, which may differ from run to run.
  config.model = ''
  config.compute = {
    'dtype': 'bfloat16',
    'remat': 'full',  # none, dots or full
    'attention': '',  # an implementation's name; '' chooses by device
    'unroll': 1,  # layers per iteration of the scan over layers
  }

  # The weights that training starts from: a workdir or a weights folder.
  config.init_from = ''
  config.init_step = 'newest'  # or 'best', or a step
  config.from_scratch = False  # start a stage from random weights all the same

  # The data, and how an example becomes tokens.
  config.store = ''
  config.tokenizer = ''  # that of init_from; or 'project', or a folder
  config.prompts = 'paper'  # or 'short', the wordings of the small models
  config.tasks = {}  # task -> share of the examples
  # Files in BAGEL's own formats, for the tasks `vlm` and `editing`
  # (docs/data.md).
  config.bagel_files = {
    'vlm': '',
    'images': '',
    'editing': '',
    'val_vlm': '',
    'val_editing': '',
  }
  config.routes = ()  # the routes to train on; empty = all
  # (regular expression of a route, how often its pairs are synthesised); the
  # first match counts, and routes without a match have 1.
  config.route_weights = ()
  config.neighbours = 3  # CTS's negatives are at most this many slices away
  config.image = {'vit_side': 392, 'vae_side': 512}  # pixels
  config.dropout = {'text': 0.1, 'vae': 0.3, 'vit': 0.3}  # of conditions
  config.augment = {'mirror': 0.0, 'warp': 0.0, 'noise': 0.0}  # training only

  # The batch. A row holds `capacity` tokens; streams of examples are packed
  # into rows of their own.
  config.capacity = {'und': 0, 'gen': 0, 'vit': 0, 'images': 0}
  config.rows = -1  # -1 = one per device of the data and fsdp axes
  config.streams = -1  # -1 = one per row
  config.packing_bins = 16
  config.reader_threads = 2
  config.mesh = (1, -1, 1)  # devices along data, fsdp, tensor; -1 = the rest

  # The recipe. `trainable` lists (regular expression of a parameter's name,
  # learning-rate multiplier); 0 freezes.
  config.trainable = ()
  config.objective = {}  # weights of the losses: objectives.ObjectiveConfig
  config.steps = 20_000
  config.optimizer = 'adamw'  # or 'muon'
  config.learning_rate = 2e-5
  config.warmup = 2000  # steps
  config.decay = 'constant'  # or 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-15
  config.weight_decay = 0.0
  config.clip = 1.0  # of the gradient's global norm
  config.ema = 0.9999  # 0 = no averaged copy
  config.max_bad_steps = 10  # skipped steps in a row, for values not finite

  # How slices are synthesised after training, Stage I included (zero-shot).
  config.sampling = BAGEL_SAMPLING

  config.log_every = 50
  config.val_every = 500  # 0 = no validation
  config.val_batches = 8
  config.checkpoint_every = 1000
  config.keep = 2  # keep the newest N checkpoints
  config.keep_every = 0  # and one every N steps for good; 0 = none
  config.best = ''  # and the best by a metric such as val/loss
  config.profile = {'start': 0, 'steps': 0}  # steps to trace; 0 = none

  config.new_words = ()  # (word, the word of init_from that it starts as)
  return config
