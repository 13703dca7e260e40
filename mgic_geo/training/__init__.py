"""What the experiments share: configuration, the training loop's parts, evaluation, figures and pictures."""

from .checkpoint import AtomicCheckpointIO as AtomicCheckpointIO
from .checkpoint import SaveLast as SaveLast
from .config import OptimizerConfig as OptimizerConfig
from .config import RunConfig as RunConfig
from .config import UsageError as UsageError
from .config import blaming as blaming
from .config import claim_output as claim_output
from .config import global_rank as global_rank
from .config import plain_errors as plain_errors
from .data import CloudData as CloudData
from .evaluate import Evaluation as Evaluation
from .evaluate import evaluate as evaluate
from .files import replacing as replacing
from .history import History as History
from .model_file import ModelCard as ModelCard
from .model_file import load_model as load_model
from .model_file import save_model as save_model
from .module import Classifier as Classifier
from .plots import plot_confusion as plot_confusion
from .plots import plot_curves as plot_curves
from .plots import plot_gallery as plot_gallery
from .progress import Progress as Progress
from .report import Summary as Summary
from .report import summarize as summarize
from .trainer import make_trainer as make_trainer
from .trainer import naming_divergence as naming_divergence
