"""Utterances on disk as batches for CTC training, read when they are asked for.

Axis suffixes: B batch, S samples, N labels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from research.data.buckets import Buckets, bucketed_batch
from research.data.digit_strings import StringBatch
from research.data.utterances import Corpus
from research.errors import DataError
from research.speech.audio import read_audio
from research.speech.tokenisers import Tokeniser, label_batch


@dataclass(frozen=True)
class SpeechStream:
    """Batches of a corpus; those of a bucket all have one shape.

    `stream(step)` is a function of the step alone: a run goes on from its step number.

    Attributes:
        corpus: the utterances.
        buckets: how they are grouped, of `corpus.seconds`.
        tokeniser: from text to labels.
        sample_rate: of the batches; files of another rate are resampled.
        seed: selects the order.
    """

    corpus: Corpus
    buckets: Buckets
    tokeniser: Tokeniser
    sample_rate: int
    seed: int = 0

    def __post_init__(self) -> None:
        """Check that the buckets are those of the corpus, and every text has labels."""
        grouped = sum(map(len, self.buckets.members))
        if grouped != len(self.corpus):
            raise DataError(
                f"buckets must group all {len(self.corpus)} utterances of {self.corpus.name}, but "
                f"they group {grouped}; make them from its seconds"
            )
        for members, longest in zip(self.buckets.members, self.buckets.longest, strict=True):
            for i in members[self.corpus.seconds[members] > longest]:
                utterance = self.corpus.utterances[int(i)]
                raise DataError(
                    f"no utterance may be longer than its bucket, but {utterance.name} has "
                    f"{utterance.seconds:g} s in a bucket of {longest:g} s; make the buckets from "
                    f"the seconds of {self.corpus.name}, or leave the utterance out"
                )
        _ = self._label_counts

    @cached_property
    def _label_counts(self) -> tuple[int, ...]:
        """Most labels of a text, for each bucket."""
        return tuple(
            max(len(self._labels(int(i))) for i in members) for members in self.buckets.members
        )

    def _labels(self, index: int) -> list[int]:
        utterance = self.corpus.utterances[index]
        try:
            labels = self.tokeniser.encode(utterance.text)
        except DataError as error:
            raise DataError(f"{utterance.name}: {error}") from error
        if not labels:
            raise DataError(
                f"every transcript must have labels, but that of {utterance.name} has none: "
                f"{utterance.text!r} is empty for this tokeniser; leave the utterance out"
            )
        return labels

    def __call__(self, step: int) -> StringBatch:
        """Read the batch of one step.

        Args:
            step: number of the batch, from 0.

        Returns:
            The batch: S is that of the longest utterance of the bucket, N that of its longest text;
            `labels` are the tokeniser's ids, its blank in padding.

        Raises:
            DataError: a file is missing, damaged or not mono.
        """
        return self._read(*bucketed_batch(self.buckets, seed=self.seed, step=step))

    def once(self) -> Iterator[tuple[StringBatch, Int[np.ndarray, " n"]]]:
        """Read every utterance once, bucket by bucket, shortest first.

        Yields:
            A batch of one of the shapes of the stream, and the positions in the corpus of its first
            rows; where fewer utterances are left than a batch has rows, the others repeat the last.

        Raises:
            DataError: a file is missing, damaged or not mono.
        """
        sizes = zip(self.buckets.members, self.buckets.batch_sizes, strict=True)
        for bucket, (members, size) in enumerate(sizes):
            for start in range(0, len(members), size):
                indices = members[start : start + size]
                filled = np.pad(indices, (0, size - len(indices)), mode="edge")
                yield self._read(bucket, filled), indices

    def _read(self, bucket: int, indices: np.ndarray) -> StringBatch:
        samples = math.ceil(self.buckets.longest[bucket] * self.sample_rate)
        waveforms = np.zeros((len(indices), samples), np.float32)
        lengths = np.zeros(len(indices), np.int32)
        texts = []
        for row, index in enumerate(indices):
            utterance = self.corpus.utterances[int(index)]
            audio = read_audio(utterance.path, sample_rate=self.sample_rate, resample=True)
            audio = audio[:samples]  # the resampler may round up
            waveforms[row, : audio.size] = audio
            lengths[row] = audio.size
            texts.append(utterance.text)
        labels, paddings = label_batch(self.tokeniser, texts, length=self._label_counts[bucket])
        return StringBatch(waveforms, lengths, labels, paddings)
