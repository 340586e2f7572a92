"""Small models as programs of TensorFlow 1 build them: MODELS are trained, SAVED_MODELS written by
TensorFlow and run.
"""

from . import convnets, embeddings, functional, layers, perceptrons, recurrent, training
from .model import MODELS, MadeModel, Model, dialect, make
from .saved_models import SAVED_MODELS

__all__ = ["MODELS", "SAVED_MODELS", "MadeModel", "Model", "dialect", "make"]
