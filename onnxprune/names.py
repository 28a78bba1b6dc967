"""Words that users choose between, so that `--help` loads none of the modules that give the words a meaning.

tests/structure/test_registries.py holds every list equal to the registry that it stands for.
"""

from __future__ import annotations

# Words for one thing: those of the command line, of Python, and of other tools. Whoever takes one of them takes all.
SYNONYMS = (
    ("ratio", "sparsity", "amount", "prune_ratio", "pruning_ratio"),
    ("ratios", "ratio_for"),
    ("recovery", "recover", "repair"),
    ("evaluate", "eval"),
    ("decay", "weight_decay"),
    ("rate", "lr", "learning_rate"),
    ("rates", "rate_for"),
    ("average", "ema"),
    ("padding", "padding_mask"),
    ("fine_tune", "fine_tune_command"),
    ("data", "calibration", "calibration_data"),
    ("criterion", "importance"),
    ("keep", "exclude", "ignore"),
    ("only", "include"),
)

# Allocation strategies (`allocation/strategies.py`); all but the first may take more of one group than of another.
UNIFORM = "uniform"
STRATEGIES = (UNIFORM, "global", "greedy", "sensitivity")
# The strategies that compare scores of different groups.
COMPARING_STRATEGIES = ("global",)
# Recovery methods (`recovery/fits.py`), and those that can do without data.
RECOVERIES = ("bias", "affine", "merge", "least-squares", "one-pass", "joint", "batchnorm")
RECOVERIES_WITHOUT_DATA = ("bias", "merge")
# Ways to combine the scores of coupled members (`criteria/aggregate.py`).
AGGREGATIONS = ("sum", "mean", "max", "norm")
# Ways to make the scores of different groups comparable (`criteria/normalize.py`).
NORMALIZATIONS = ("mean", "max", "sum", "standard", "none")
# Kinds of budgets (`allocation/kinds.py`) -> the limited quantity, in the words of the command line.
BUDGETS = {
    "macs": "multiply-accumulates for one sample: 50% or 2.1G",
    "params": "the elements of all weights: 50% or 2M",
    "size": "the bytes of the file: 50% or 20MB",
    "memory": "the bytes of activations that lie in memory at once, for one sample",
    "latency": "the measured time of a run: 60% or 12ms (see --provider, --threads, --sizes)",
}
# How the removal grows from step to step (`pipelines/iterative.py`).
STEP_SCHEDULES = ("linear", "cubic", "geometric")
# What training makes small (`recovery/training_options.py`), how it steps and how its rate falls
# (`autodiff/optimizers.py`), and how it changes pictures (`recovery/augment.py`).
LOSSES = ("distil", "cross-entropy", "mse")
OPTIMIZERS = ("adamw", "relative", "sgd")
RATE_SCHEDULES = ("constant", "linear", "cosine")
AUGMENTATIONS = ("flip", "shift", "colour", "mixup")
# How units are chosen while the model trains (`pipelines/dynamic_units.py`).
WHILE_TRAINING = ("soft", "group-lasso", "slimming", "growing")
# The same for zeros in single weights (`pipelines/dynamic_zeros.py`).
ZEROS_WHILE_TRAINING = ("gradual", "rigl", "l1")
# Ways to choose zeros (`sparsity/`); "threshold" is written with a number.
MASKINGS = ("magnitude", "threshold", "random", "wanda", "ria", "sparsegpt", "alps", "taylor")
# What the elements of a weight are compared with: those of one output, of the layer, of all layers.
COMPARISONS = ("output", "layer", "global")
# How zeros are stored.
STORAGES = ("dense", "sparse", "auto")
# The forms of a product (`layers/factor_forms.py`), how its directions are found, and the budgets that ranks are found
# for (`allocation/ranks.py`).
FACTOR_FORMS = ("channel", "spatial", "tucker")
LOW_RANK_METHODS = ("auto", "whitened", "scaled", "plain")
RANK_BUDGETS = ("params", "macs", "size", "latency")
# The lowest and the highest temperature of a distillation.
TEMPERATURES = (0.01, 1000.0)
# What decides which blocks are dropped (`pipelines/block_choice.py`), what counts as a block, and the budgets that
# dropping meets.
BLOCK_CRITERIA = ("divergence", "influence", "parameters", "random")
BLOCK_UNITS = ("auto", "blocks", "branches", "runs", "all")
BLOCK_BUDGETS = ("macs", "params", "size")
# The forms in which a quantised model is written (`pipelines/quantize_options.py`), and the types of its numbers.
QUANTIZED_FORMS = ("qdq", "operators", "dynamic", "blocks")
WHOLE_TYPES = ("int8", "uint8")
WEIGHT_TYPES = (*WHOLE_TYPES, "int4", "uint4")
BLOCK_BITS = (2, 4, 8)
# The kinds of cost that `auto` lowers (`pipelines/auto_recipes.py`).
AUTO_BUDGETS = ("size", "latency", "macs", "params")
