"""Published CTC recognisers: read, run, fine-tuned and written without torch.

`load` reads a folder in the layout of transformers, `save` writes one; `transcribe` and `align`
give text with the time of each word; `make_apply` and `freeze` are for fine-tuning.
"""

from research.speech.pretrained.checkpoint import (
    Checkpoint,
    initial,
    load,
    save,
    with_vocabulary,
)
from research.speech.pretrained.fine_tuning import Utterances, freeze, make_apply
from research.speech.pretrained.front_end import RawWaveform, StackedLogMel
from research.speech.pretrained.transcription import (
    Transcript,
    Word,
    align,
    emissions,
    read_speech,
    transcribe,
)
from research.speech.pretrained.vocabulary import Characters, WordPieces

__all__ = [
    "Characters",
    "Checkpoint",
    "RawWaveform",
    "StackedLogMel",
    "Transcript",
    "Utterances",
    "Word",
    "WordPieces",
    "align",
    "emissions",
    "freeze",
    "initial",
    "load",
    "make_apply",
    "read_speech",
    "save",
    "transcribe",
    "with_vocabulary",
]
