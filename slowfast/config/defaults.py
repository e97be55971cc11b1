"""Every key of the configuration: meaning, unit, allowed values, source.

Names and defaults are those of PySlowFast, Open-VCLIP, FROSTER and STDD, whose YAML files load here; "ours" marks a key
that they do not have. Keys that never reached a CLIP model, and keys of removed features, are declared in legacy.py.
"""

from __future__ import annotations

import importlib
from typing import Any

from slowfast.config import legacy, validate, values
from slowfast.config.node import CfgNode
from slowfast.config.values import AllowedValues
from slowfast.methods import METHODS

_C = CfgNode()

# ------------------------------------------------------------------------------------------------------- run, machines
# Method and protocol of the run: a key of slowfast.methods.METHODS and of slowfast.protocols.PROTOCOLS. Ours.
_C.METHOD = "stdd"
_C.PROTOCOL = "single_dataset"
# Prefix of checkpoint names; empty for CLIP. PySlowFast.
_C.TASK = ""
# Processes on this machine, one per GPU; 0 runs one process on the CPU. PySlowFast.
_C.NUM_GPUS = 1
# Machines, and the number of this one; both come from --num_shards and --shard_id. PySlowFast.
_C.NUM_SHARDS = 1
_C.SHARD_ID = 0
# Folder of everything that a run writes. PySlowFast.
_C.OUTPUT_DIR = "."
# Seed of every random draw of a run. PySlowFast; the CLIP files set 0.
_C.RNG_SEED = 1
# Iterations between two json_stats lines, >= 1. PySlowFast.
_C.LOG_PERIOD = 10
# Report parameters and multiply-adds at start-up, counted without running the model. PySlowFast.
_C.LOG_MODEL_INFO = True
# nccl or gloo; without a GPU gloo is used. PySlowFast.
_C.DIST_BACKEND = "nccl"
# Longest that a process waits for the others, > 0, before the run ends: longer than a checkpoint takes to be written,
# or a CLIP to be downloaded. Ours.
_C.DIST_TIMEOUT_MINUTES = 30.0
# Only algorithms that give the same bits in every run on the same hardware, slower on a GPU; on a CPU runs repeat
# anyway. Ours.
_C.DETERMINISTIC = False
# Training validates once and returns. Open-VCLIP.
_C.VAL_MODE = False
# Learn the classifier matrix instead of reading it from the class names. Open-VCLIP.
_C.TUNE_HEAD = False
# Names of the annotation files inside DATA.PATH_TO_DATA_DIR. FROSTER.
_C.TRAIN_FILE = "train.csv"
_C.VAL_FILE = "val.csv"
_C.TEST_FILE = "test.csv"

# ----------------------------------------------------------------------------------------------------------- protocols
_C.SPLITS = CfgNode()
# For every PROTOCOL but single_dataset, which reads the loose files above: folder of the datasets that
# tools/prepare_data.py made; the one that is scored (and trained on); the one that a zero-shot model is trained on.
# Ours.
_C.SPLITS.LABEL_DB = "label_db"
_C.SPLITS.DATASET = ""
_C.SPLITS.SOURCE = "k400"
# Class names: index2cls (plain) or rephrased ("Name: sentence", FROSTER, TC-CLIP). Ours.
_C.SPLITS.NAMES = "index2cls"
# few_shot: videos per class; score test splits 2 and 3 too, which hold videos that were trained on. Ours.
_C.SPLITS.SHOTS = 16
_C.SPLITS.ALL_TESTS = False
# base_to_novel: draw of the training videos, >= 1. fully_supervised: official split of UCF101 and HMDB51, 1 to 3. Ours.
_C.SPLITS.SEED = 1
_C.SPLITS.NUMBER = 1
# zero_shot: score the half-class draws too (Open-VCLIP). Ours.
_C.SPLITS.HALVES = False

_C.EPISODES = CfgNode()
# PROTOCOL episodic: which class splits, a folder episodic/<name> of the dataset's lists; empty: the only one. Ours.
_C.EPISODES.BENCHMARK = ""
# Classes of an episode, >= 2; labelled videos per class, supports, >= 1; videos to classify per class, queries, >= 1.
# Of validation and tests, 0: as many as in training, but for QUERY_TEST. CLIP-FSAR has them under TRAIN: WAY, WAT_TEST,
# SHOT, SHOT_TEST, QUERY_PER_CLASS, QUERY_PER_CLASS_TEST.
_C.EPISODES.WAY = 5
_C.EPISODES.WAY_TEST = 0
_C.EPISODES.SHOT = 1
_C.EPISODES.SHOT_TEST = 0
_C.EPISODES.QUERY = 5
_C.EPISODES.QUERY_TEST = 1
# Learn from episodes of the base classes, TRAIN.BATCH_SIZE of them per step and machine; False: from their videos one
# by one, as any method can. Ours.
_C.EPISODES.TRAIN = False
# Episodes of a training epoch, over all processes; of a validation; of a test. Ours; CLIP-FSAR tests 10,000.
_C.EPISODES.NUM_TRAIN = 4000
_C.EPISODES.NUM_VAL = 1000
_C.EPISODES.NUM_TEST = 10000
# Episodes of validation and tests follow from this seed, >= 0, and their number alone, so that all methods meet on the
# same ones; those of training from RNG_SEED. Ours.
_C.EPISODES.SEED = 0
# Classes that training is validated on: val, or test, as published, which chooses the model on the test. Ours.
_C.EPISODES.VAL = "val"
# How queries are compared with supports: own (the method's, where it has one), prototype (cosine of the means over
# frames and supports), otam (ordered alignment of frames). Ours.
_C.EPISODES.HEAD = "own"
# lambda of the soft minimum of otam, > 0. CLIP-FSAR; OTAM itself has 0.1.
_C.EPISODES.SMOOTHING = 0.5
# In training, neither mirror nor augment supports, only queries. CLIP-FSAR, on Kinetics.
_C.EPISODES.PLAIN_SUPPORT = False
# Frames of a clip of a test: middle (fixed, so that a video is encoded once), or random in each episode, as published
# with segments: every clip of every episode is decoded, encoded and kept on the disk until the test ends. Validation
# always takes the middle. Ours.
_C.EPISODES.TEST_FRAMES = "middle"
# Most memory, in GB, for what is remembered of the videos while episodes are scored; others are computed again. Ours.
_C.EPISODES.MEMO_GB = 4.0

_C.AVERAGE = CfgNode()
# Weights that tools/run_protocol.py tests after training: swa, gwa, bwa or ewa over the epochs START to END (from 1;
# END 0: the last; START 0 includes raw CLIP), or, empty, those of the last epoch, with TRAIN.KEEP_BEST the best. Ours.
_C.AVERAGE.METHOD = ""
_C.AVERAGE.START = 2
_C.AVERAGE.END = 0

# ------------------------------------------------------------------------------------------------------------ training
_C.TRAIN = CfgNode()
# Run this phase. PySlowFast.
_C.TRAIN.ENABLE = True
# Kind of dataset: kinetics, that is a CSV of videos and labels. PySlowFast.
_C.TRAIN.DATASET = "kinetics"
# Videos per step and machine, all its GPUs together; a multiple of NUM_GPUS. Validation uses it too. PySlowFast.
_C.TRAIN.BATCH_SIZE = 64
# Epochs between two validations and between two checkpoints, >= 1; the last epoch always has both. PySlowFast.
_C.TRAIN.EVAL_PERIOD = 10
_C.TRAIN.CHECKPOINT_PERIOD = 10
# Keep only the newest checkpoints, counted; 0 keeps all, which weight averaging needs. Ours.
_C.TRAIN.KEEP_LAST_CHECKPOINTS = 0
# Keep that of the epoch with the least top-1 error at validation too, of equal ones the earliest, as
# checkpoint_best.pyth, and test it instead of the last; EVAL_PERIOD is then a multiple of CHECKPOINT_PERIOD. Choose on
# videos that are not those of the test. Ours.
_C.TRAIN.KEEP_BEST = False
# Checkpoints within an epoch: after so many steps, after so many minutes, 0: none; and how many of them are kept, >= 1.
# They lie beside those of epochs and go when training ends. Ours.
_C.TRAIN.CHECKPOINT_STEPS = 0
_C.TRAIN.CHECKPOINT_MINUTES = 0.0
_C.TRAIN.KEEP_LAST_WITHIN_EPOCH = 2
# Continue from the last checkpoint in OUTPUT_DIR, if there is one. PySlowFast. FORCE_RESUME: also where keys, lists or
# weights say that it would be another training from there on. Ours.
_C.TRAIN.AUTO_RESUME = True
_C.TRAIN.FORCE_RESUME = False
# Checkpoint to start from when there is nothing to resume; forget its epoch and optimiser; name parts to cut from its
# keys. PySlowFast.
_C.TRAIN.CHECKPOINT_FILE_PATH = ""
_C.TRAIN.CHECKPOINT_EPOCH_RESET = False
_C.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN = ()
# Initial weights from a {"model_state": ...} file; keys that it lacks keep CLIP's values. Open-VCLIP.
_C.TRAIN.CUSTOM_LOAD = False
_C.TRAIN.CUSTOM_LOAD_FILE = None
# Automatic mixed precision. PySlowFast. The type: auto (bfloat16 where the hardware has it, else float16 with loss
# scaling), bfloat16 or float16. Ours. On a CPU auto is float32, and the others are slow.
_C.TRAIN.MIXED_PRECISION = False
_C.TRAIN.AMP_DTYPE = "auto"
# Parts that a batch is split into, with a backward pass each and one update for all, >= 1: less memory for the same
# batch. Ours.
_C.TRAIN.ACCUMULATION_STEPS = 1
# Compile the image towers with torch.compile; the first two batch sizes of each mode get a program. Ours.
_C.TRAIN.COMPILE = False
# Steps whose loss or gradient is not finite that a run may leave out before it stops; 0 stops at the first. Ours.
_C.TRAIN.NONFINITE_BUDGET = 10
# > 0: stop when the loss exceeds this many times the mean of the previous five. PySlowFast.
_C.TRAIN.KILL_LOSS_EXPLOSION_FACTOR = 0.0
# Raw CLIP archive that interpolated-weight training (LINEAR_CONNECT) reads; None: CLIP as the run built it. Open-VCLIP.
_C.TRAIN.CLIP_ORI_PATH = None
# A second loss at weights between CLIP and the current ones, its weight, and the range of the share of CLIP, within
# [0, 1], lower < upper. Open-VCLIP.
_C.TRAIN.LINEAR_CONNECT_CLIMB = False
_C.TRAIN.LINEAR_CONNECT_LOSS_RATIO = 1.0
_C.TRAIN.LINEAR_CONNECT_SAMPLE_L = 0.4
_C.TRAIN.LINEAR_CONNECT_SAMPLE_R = 0.6

# ------------------------------------------------------------------------------------------------------------- testing
_C.TEST = CfgNode()
# Run this phase; kind of dataset; videos per step and machine, a multiple of NUM_GPUS. PySlowFast.
_C.TEST.ENABLE = True
_C.TEST.DATASET = "kinetics"
_C.TEST.BATCH_SIZE = 8
# Go on with an interrupted test of the same weights and configuration after the videos that it had scored. Ours.
_C.TEST.AUTO_RESUME = True
# Checkpoint to test; empty: the last of OUTPUT_DIR (with TRAIN.KEEP_BEST the best), else TRAIN.CHECKPOINT_FILE_PATH,
# else plain CLIP. PySlowFast.
_C.TEST.CHECKPOINT_FILE_PATH = ""
# Test the weights of a {"model_state": ...} file instead. Open-VCLIP.
_C.TEST.CUSTOM_LOAD = False
_C.TEST.CUSTOM_LOAD_FILE = None
# Mix those weights with raw CLIP: ratio * CLIP + (1 - ratio) * file, ratio in [0, 1]; path of the CLIP archive.
# Open-VCLIP.
_C.TEST.PATCHING_MODEL = False
_C.TEST.PATCHING_RATIO = 0.5
_C.TEST.CLIP_ORI_PATH = None
# Shares of raw CLIP, in [0, 1], to test one after the other, whichever file the weights come from: the first gives
# results.json, a further share R results_clipR.json. Raw CLIP is TEST.CLIP_ORI_PATH; None: CLIP as the run built it.
# Empty: PATCHING_MODEL decides. Ours.
_C.TEST.PATCHING_RATIOS = []
# Clips per video along time, >= 1, or -1 for the series 1, 3, 5, 7, 10; crops per clip, 1 (centre) or 3. A list in
# NUM_TEMPORAL_CLIPS tests once per entry and replaces NUM_ENSEMBLE_VIEWS. PySlowFast.
_C.TEST.NUM_ENSEMBLE_VIEWS = 10
_C.TEST.NUM_SPATIAL_CROPS = 3
_C.TEST.NUM_TEMPORAL_CLIPS = []
# Name of the predictions file inside OUTPUT_DIR, [predictions (V, K), labels (V,)]; empty: not written. PySlowFast.
_C.TEST.SAVE_RESULTS_PATH = ""
# Read test_openset.csv instead of TEST_FILE. Open-VCLIP.
_C.TEST.OPENSET = False
# fp32, or amp: the mixed precision of training, about 1e-3 on a logit. Ours.
_C.TEST.PRECISION = "fp32"

# ---------------------------------------------------------------------------------------------------------------- data
_C.DATA = CfgNode()
# Folder of the annotation files; folder put before each video's path; what separates path and label. PySlowFast.
_C.DATA.PATH_TO_DATA_DIR = ""
_C.DATA.PATH_PREFIX = ""
_C.DATA.PATH_LABEL_SEPARATOR = " "
# Let rows of annotation files name videos outside PATH_PREFIX: by an absolute path, or one that climbs out with "..".
# Without a prefix there is nothing to leave, and every path is taken. Ours.
_C.DATA.ALLOW_ABSOLUTE_PATHS = False
# JSON {"0": "class name", ...}, keys 0 to K-1; K is the number of classes of the classifier. Open-VCLIP.
_C.DATA.INDEX_LABEL_MAPPING_FILE = ""
# Several sentences per class instead of templates: a tensor (K, n, E) and the two-way max-mean score. STDD.
_C.DATA.TEXT_AUG = False
_C.DATA.TEXT_AUG_FEATURE_FILE = ""
# Frames of a clip, and distance between them in frames at TARGET_FPS. PySlowFast.
_C.DATA.NUM_FRAMES = 8
_C.DATA.SAMPLING_RATE = 8
# dense: spans the whole window without repeating its last frame; pyslowfast: the official PyAV rule, whose last frames
# of a window coincide; uniform: one frame of each of NUM_FRAMES segments of the whole video, which reads no rate
# (ViFi-CLIP, TC-CLIP); interval: spans a window of NUM_FRAMES strides but for its last SAMPLING_RATE frames (CLIP-FSAR,
# with 8 frames at rate 35 and 12 per second for Kinetics-100). Ours.
_C.DATA.FRAME_SAMPLING = "dense"
# Frames per second to which videos are brought, and upper end of a random addition in training. PySlowFast.
_C.DATA.TARGET_FPS = 30
_C.DATA.TRAIN_JITTER_FPS = 0.0
# First and last test clip touch the ends of the video; the official PyAV path reads it only for videos of unknown
# length. PySlowFast.
_C.DATA.USE_OFFSET_SAMPLING = False
# Key of slowfast.datasets.decode.DECODERS: pyav, or torchcodec (an extra; AVI files are read by pyav all the same). The
# official default, torchvision, is refused: its video reader was removed, and the official scripts choose pyav too.
_C.DATA.DECODING_BACKEND = "pyav"
# Folder of decoded frames, kept from one run to the next, empty for none; most that it may hold, in GB. The frames are
# the same to the bit: those that a test reads, whole videos in training. Ours.
_C.DATA.CACHE_DIR = ""
_C.DATA.CACHE_GB = 20.0
# How frames travel to the device: uint8 (crops rounded to whole grey levels), or float32 as officially. Ours.
_C.DATA.CLIP_DTYPE = "uint8"
# Share of undecodable videos, in [0, 1], past which training stops instead of replacing them. Ours.
_C.DATA.MAX_BAD_FRACTION = 0.05
# Feed the frames of a test clip backwards: an ablation of what a model knows of time. Ours.
_C.DATA.REVERSE_FRAMES = False
# Range of the random short side in training, pixels; the lower end is the short side of one-crop tests. PySlowFast.
_C.DATA.TRAIN_JITTER_SCALES = [256, 320]
# Range of the area, as a share, and of the aspect ratio of a random resized crop in training; both empty: plain crop.
# PySlowFast.
_C.DATA.TRAIN_JITTER_SCALES_RELATIVE = []
_C.DATA.TRAIN_JITTER_ASPECT_RELATIVE = []
# Multi-scale crop in training: sides as shares of the short side, in (0, 1], neighbours side by side. Height and width
# of the same or of neighbouring shares, at a corner or the centre, are scaled to TRAIN_CROP_SIZE. Empty: none. Ours;
# TC-CLIP takes [1, 0.875, 0.75, 0.66] of a short side of 256.
_C.DATA.TRAIN_CROP_SCALES = []
# Scale pictures to a square of the short side, whatever their aspect ratio, and crop that; not with the two sorts of
# crops above, nor with three spatial crops. Ours; CLIP-FSAR does so, with TRAIN_JITTER_SCALES [256, 256].
_C.DATA.SQUASH = False
# Side of the square crop, pixels; 224 for OpenAI's CLIPs. PySlowFast.
_C.DATA.TRAIN_CROP_SIZE = 224
_C.DATA.TEST_CROP_SIZE = 256
# Mirror half of the training clips; draw the short side uniformly in its reciprocal; BGR instead of RGB. PySlowFast.
_C.DATA.RANDOM_FLIP = True
_C.DATA.INV_UNIFORM_SAMPLE = False
_C.DATA.REVERSE_INPUT_CHANNEL = False
# Mean and deviation per colour channel, of values in [0, 1]. PySlowFast; the CLIP files set CLIP's.
_C.DATA.MEAN = [0.45, 0.45, 0.45]
_C.DATA.STD = [0.225, 0.225, 0.225]
# How the views of a video merge: sum of logits, or max. PySlowFast.
_C.DATA.ENSEMBLE_METHOD = "sum"

_C.DATA_LOADER = CfgNode()
# Worker processes per GPU, >= 0; copy batches through pinned memory. PySlowFast.
_C.DATA_LOADER.NUM_WORKERS = 2
_C.DATA_LOADER.PIN_MEMORY = True
# Seconds, >= 1, after which a worker that gives no batch is taken to hang in a video: the run ends with a line that
# names it. Without workers nothing watches. Ours.
_C.DATA_LOADER.TIMEOUT_SECONDS = 900

_C.AUG = CfgNode()
# Crops per decoded video in training, >= 1, also when ENABLE is False: the batch grows by this factor. PySlowFast.
_C.AUG.NUM_SAMPLE = 1
# Augment training clips, all frames alike. AA_TYPE: rand, then -m magnitude 0..10, -n operations, -mstd deviation (inf:
# uniform), -inc 0 or 1, -w0 weighted choice, -p share applied; empty: colour jitter of strength COLOR_JITTER instead.
# INTERPOLATION: bicubic, bilinear, random. RE_*: share of crops that are erased, fill (pixel, rand, const), boxes 1 to
# RE_COUNT; RE_SPLIT keeps the first of NUM_SAMPLE crops whole. PySlowFast.
_C.AUG.ENABLE = False
_C.AUG.COLOR_JITTER = 0.4
_C.AUG.AA_TYPE = "rand-m9-mstd0.5-inc1"
_C.AUG.INTERPOLATION = "bicubic"
_C.AUG.RE_PROB = 0.25
_C.AUG.RE_MODE = "pixel"
_C.AUG.RE_COUNT = 1
_C.AUG.RE_SPLIT = False

# With ENABLE, behind the crop: share of clips, in [0, 1], whose frames change their colours, each frame in its own way
# and order; most that brightness, contrast, saturation (at least 0) and hue (at most 0.5) change by; share of clips
# that lose their colours. Ours; the strengths are TC-CLIP's, whose shares are 0.8 and 0.2.
_C.AUG.FRAME_JITTER_PROB = 0.0
_C.AUG.FRAME_JITTER = [0.4, 0.4, 0.2, 0.1]
_C.AUG.GRAY_PROB = 0.0
# frame, as said, or clip: one way and order for all frames of a clip, and the colours are lost before. Ours; CLIP-FSAR
# does so to all queries of Kinetics-100, with strengths [0.5, 0.5, 0.5, 0.25] and 0.3 of them without colours.
_C.AUG.JITTER_PER = "frame"

_C.MIXUP = CfgNode()
# Mix the clips of a batch, by MixUp or CutMix: one share per group, the partner is a clip of the same group. Parameters
# of the two beta distributions, 0 switches that one off; share of groups that are mixed; of these by CutMix; label
# smoothing in [0, 1). PySlowFast.
_C.MIXUP.ENABLE = False
_C.MIXUP.ALPHA = 0.8
_C.MIXUP.CUTMIX_ALPHA = 1.0
_C.MIXUP.PROB = 1.0
_C.MIXUP.SWITCH_PROB = 0.5
_C.MIXUP.LABEL_SMOOTH_VALUE = 0.1
# The partner: mirrored (first with last, PySlowFast), or permuted (drawn, at times the clip itself; TC-CLIP). Clips per
# group, >= 2; the last group of a process may have fewer; 0: one group, its whole batch. Groups as large as the parts
# of TRAIN.ACCUMULATION_STEPS are published micro-batches. Ours.
_C.MIXUP.PARTNER = "mirrored"
_C.MIXUP.GROUP_SIZE = 0

# --------------------------------------------------------------------------------------------------------------- model
_C.MODEL = CfgNode()
# TemporalClipVideo. PySlowFast's default, SlowFast, is not part of this project: a file must choose.
_C.MODEL.MODEL_NAME = "SlowFast"
# vitb32, vitb16, vitl14, rn50 (OpenAI's CLIP), or custom with MODEL.CLIP_WEIGHTS: sizes read from that file.
# Open-VCLIP.
_C.MODEL.ARCH = "slowfast"
# Weights that replace the download named by ARCH: a CLIP archive, state dict, safetensors or {"model_state"} file, or
# "random" for a seeded random CLIP of ARCH's size. Ours.
_C.MODEL.CLIP_WEIGHTS = ""
# Activation of CLIP's blocks: quick_gelu (OpenAI), gelu (most of open_clip's), or auto: what the weight file says,
# quick_gelu where it says nothing. Ours.
_C.MODEL.CLIP_ACTIVATION = "auto"
# Folder of downloaded CLIP archives; empty: ~/.cache/clip. Ours.
_C.MODEL.CLIP_CACHE_DIR = ""
# Read a TorchScript archive whose sha256 is none of the published CLIPs'; nothing of it is run either way. Ours.
_C.MODEL.CLIP_ALLOW_TORCHSCRIPT = False
# Number of classes; only compared with the label map, which decides: a run that finds another number says so.
# PySlowFast.
_C.MODEL.NUM_CLASSES = 400
# cross_entropy and soft_cross_entropy, equal for labels that are class indices; bce_logit, mse, nce_loss against
# one-hot labels. PySlowFast.
_C.MODEL.LOSS_FUNC = "cross_entropy"
# None (each frame on its own), stcross_attend (STDD), expand_temporal_view, expand_temporal_view_step2, _step3
# (Open-VCLIP), channel_shift (TSM), cross_frame_attend (X-CLIP), stadapt_zeroinit (ST-Adapter). Open-VCLIP, STDD.
_C.MODEL.TEMPORAL_MODELING_TYPE = None
# expand_temporal_view: leave neighbours outside the clip out of the softmax; False: zero keys, as published. Ours.
_C.MODEL.EXPAND_VIEW_MASKED = False
# STDD's block: share of patches kept out of the temporal branch, in [0, 1]; the mask's cell [1, rows, columns] in
# patches, which must divide the patch grid; same phase in every cell; frames take each other's masks at random.
_C.MODEL.MASK_RATE = 0.5
_C.MODEL.MASK_STRIDE = [1, 2, 2]
_C.MODEL.SPATIAL_REPEAT = True
_C.MODEL.TEMPORAL_SHUFFLE = True
# Shuffle the masks at evaluation too, as published: scores then depend on the seed. Ours.
_C.MODEL.TEMPORAL_SHUFFLE_EVAL = False
# STDD's block: width / CHANNEL_FOLD channels move one way in time, as many the other way (>= 2); offsets in frames, one
# pass per entry (>= 1). STDD; its scripts set 32 and [1, 2].
_C.MODEL.CHANNEL_FOLD = 64
_C.MODEL.TEMPORAL_SCALE = [1]
# What the block's MLP reads: unmerged (full-attention tokens, as published) or merged (its own residual). Ours.
_C.MODEL.STCROSS_MLP_INPUT = "unmerged"
# Queries, keys and values of the temporal scales: "own": a product of their own; "shared": the spatial branch's
# product and a thin correction, equal to rounding and cheaper; "auto": shared in float32, own in half precision, where
# rounding could be magnified. Ours.
_C.MODEL.STCROSS_QKV = "auto"
# Keep a frozen CLIP beside the tuned one; distil from it; weight of that loss, >= 0. Open-VCLIP, FROSTER.
_C.MODEL.KEEP_RAW_MODEL = False
_C.MODEL.RAW_MODEL_DISTILLATION = False
_C.MODEL.DISTILLATION_RATIO = 1.0
# intended: the distillation loss has a gradient; published: it is a constant, and the teacher is skipped; froster: the
# text tower trains too, towards frozen CLIP's text; kl: towards frozen CLIP's class probabilities (Open-VCLIP). Ours.
_C.MODEL.DISTILLATION_MODE = "intended"
# Mix the frozen CLIP's logits into the predictions; its share, in [0, 1]. Open-VCLIP.
_C.MODEL.ENSEMBLE_PRED = False
_C.MODEL.ENSEMBLE_RAWMODEL_RATIO = 0.0
# Recompute activations in the backward pass to save memory. PySlowFast.
_C.MODEL.USE_CHECKPOINT = False
# DistributedDataParallel may assume that the graph of a step never changes. PySlowFast.
_C.MODEL.STATIC_GRAPH = False
# Learned context vectors in place of templates, and their number. Open-VCLIP.
_C.MODEL.TEXT_PROMPT = False
_C.MODEL.PROMPT_NUM = 1
# Mixture of MLP experts: number, blocks that have one, who chooses (patch-level, image-level), and the routing loss.
# Open-VCLIP.
_C.MODEL.NUM_EXPERTS = 0
_C.MODEL.EXPERT_INSERT_LAYERS = [10, 11]
_C.MODEL.ROUTING_TYPE = "patch-level"
_C.MODEL.RECORD_ROUTING = False
_C.MODEL.ROUTING_FREQUENCE_CONSTRAIN = 0.5
_C.MODEL.ROUTING_FREQ_CONS_FACTOR = 1.0
_C.MODEL.CLS_LOSS_RATIO = 1.0
_C.MODEL.LOSS_FREQ_TYPE = "mse"
# Learning-rate factors by module name (message, stadapt, mlp, experts, routing, everything else); 0 freezes. The
# routing factor counts only when another differs from 1, as in Open-VCLIP.
_C.MODEL.FINETUNE_FACTOR = 1.0
_C.MODEL.ADAPT_FINETUNE_FACTOR = 1.0
_C.MODEL.MLP_FINETUNE_FACTOR = 1.0
_C.MODEL.EXPERT_FINETUNE_FACTOR = 1.0
_C.MODEL.ROUTING_FINETUNE_FACTOR = 1.0
_C.MODEL.DEFAULT_FINETUNE_FACTOR = 1.0

# -------------------------------------------------------------------------------------------------------------- solver
_C.SOLVER = CfgNode()
# Learning rate after warm-up; cosine or steps_with_relative_lrs (PySlowFast), or cosine_shared_end (ours; ViFi-CLIP,
# TC-CLIP): warm-up to BASE_LR itself, then a cosine over all epochs, warm-up counted in, to a COSINE_END_LR that is the
# same for all groups, whatever their factor; number of epochs.
_C.SOLVER.BASE_LR = 0.1
_C.SOLVER.LR_POLICY = "cosine"
_C.SOLVER.MAX_EPOCH = 300
# Multiply BASE_LR, WARMUP_START_LR and COSINE_END_LR by NUM_SHARDS. PySlowFast.
_C.SOLVER.BASE_LR_SCALE_NUM_SHARDS = False
# Linear warm-up: its length in epochs, its first rate. PySlowFast.
_C.SOLVER.WARMUP_EPOCHS = 0.0
_C.SOLVER.WARMUP_START_LR = 0.01
# Cosine: last rate, < BASE_LR; start after warm-up; restart cycle in epochs, 0: none. The latter two only of "cosine".
# PySlowFast, Open-VCLIP.
_C.SOLVER.COSINE_END_LR = 0.0
_C.SOLVER.COSINE_AFTER_WARMUP = False
_C.SOLVER.COSINE_RESTART_EPOCH = 0
# steps_with_relative_lrs: first epoch of each step, and its rate as a factor of BASE_LR. PySlowFast.
_C.SOLVER.STEPS = []
_C.SOLVER.LRS = []
# sgd, adam, adamw or mt_adamw (the same formula as adamw, fused over parameters). PySlowFast.
_C.SOLVER.OPTIMIZING_METHOD = "sgd"
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.DAMPENING = 0.0
_C.SOLVER.NESTEROV = True
_C.SOLVER.BETAS = (0.9, 0.999)
# Weight decay; none for biases and one-dimensional parameters if ZERO_WD_1D_PARAM. PySlowFast.
_C.SOLVER.WEIGHT_DECAY = 1e-4
_C.SOLVER.ZERO_WD_1D_PARAM = False
# Rate factor per layer of depth: only 1, since PySlowFast's rule matches no name of a CLIP. PySlowFast.
_C.SOLVER.LAYER_DECAY = 1.0
# Gradient clipping by value, else by global 2-norm; None: neither. PySlowFast.
_C.SOLVER.CLIP_GRAD_VAL = None
_C.SOLVER.CLIP_GRAD_L2NORM = None

_C.BN = CfgNode()
# Weight decay of batch-normalisation parameters; CLIP's ViTs have none. PySlowFast.
_C.BN.WEIGHT_DECAY = 0.0

# ------------------------------------------------------------------------------------------------------------- reports
_C.TENSORBOARD = CfgNode()
# Write training curves for TensorBoard, into LOG_DIR inside OUTPUT_DIR; empty: "tensorboard". PySlowFast.
_C.TENSORBOARD.ENABLE = False
_C.TENSORBOARD.LOG_DIR = ""

_C.DEMO = CfgNode()
# Score one's own videos: files or folders, class names (empty: the label map), classes to show per video, >= 1. Ours.
_C.DEMO.ENABLE = False
_C.DEMO.VIDEOS = []
_C.DEMO.CLASSES = []
_C.DEMO.TOPK = 5
# Folder for pictures and films of what the method looked at in each clip; empty: none. Ours. The layers to draw, from
# 1; []: the first, the middle and the last.
_C.DEMO.EXPLAIN = ""
_C.DEMO.EXPLAIN_LAYERS = []


def _declare(full_key: str, value: object) -> None:
    node = _C
    *sections, name = full_key.split(".")
    for section in sections:
        if section not in node:
            node[section] = CfgNode()
        node = node[section]
    node[name] = value


for _key, _value in legacy.inert_defaults().items():
    _declare(_key, _value)


def get_cfg() -> CfgNode:
    """Return a new tree of defaults, including the keys that each method declares in its own folder."""
    cfg = _C.clone()
    for leaf in _leaves():
        add_config = leaf.get("add_config")
        if add_config is not None:
            add_config(cfg)
    cfg.declare_optional()
    return cfg


def allowed_values() -> AllowedValues:
    """What single keys may hold, those of the methods included."""
    return AllowedValues(
        choices={**values.CHOICES, "METHOD": tuple(METHODS), **_of_leaves("CHOICES")},
        ranges={**values.RANGES, **_of_leaves("RANGES")},
        lists={**values.LISTS, **_of_leaves("LISTS")},
    )


def _leaves() -> list[dict[str, Any]]:
    """The names that the configuration modules of all methods define."""
    packages = (target.partition(":")[0].rpartition(".")[0] for target in METHODS.values())
    return [vars(importlib.import_module(f"{package}.config")) for package in packages]


def _of_leaves(table: str) -> dict[str, Any]:
    return {key: value for leaf in _leaves() for key, value in leaf.get(table, {}).items()}


def assert_and_infer_cfg(cfg: CfgNode) -> CfgNode:
    """Check all keys against each other and apply SOLVER.BASE_LR_SCALE_NUM_SHARDS.

    The three learning rates are scaled in place, once: the switch is off in the result, so that a saved config can be
    loaded again.

    Args:
        cfg: a tree as :func:`get_cfg` makes it, frozen or not.

    Returns:
        The same tree.

    Raises:
        ConfigError: naming the first key whose value is not allowed, what it is, and what is.
    """
    validate.check(cfg, allowed=allowed_values())
    if cfg.SOLVER.BASE_LR_SCALE_NUM_SHARDS and cfg.NUM_SHARDS > 1:
        frozen = cfg.is_frozen()
        cfg.defrost()
        for name in ("BASE_LR", "WARMUP_START_LR", "COSINE_END_LR"):
            cfg.SOLVER[name] *= cfg.NUM_SHARDS
        cfg.SOLVER.BASE_LR_SCALE_NUM_SHARDS = False
        if frozen:
            cfg.freeze()
    return cfg
