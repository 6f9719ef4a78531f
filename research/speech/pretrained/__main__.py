"""The command line of pretrained recognisers."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from research.errors import TrellisError
from research.speech.pretrained import align, load, read_speech, transcribe
from research.speech.pretrained.transcription import CHUNK_SECONDS, Transcript

_DESCRIPTION = """\
Transcribe audio with a published CTC recogniser (wav2vec2, HuBERT, wav2vec2-BERT, Parakeet-CTC),
and say when each word was said. DIR holds the files of the model as they are published:
config.json, model.safetensors, preprocessor_config.json, and vocab.json or tokenizer.json. Needs
neither torch nor a network.
"""
_EXAMPLES = """\
examples:
  python -m research.speech.pretrained ~/models/wav2vec2-base-960h speech.flac
  python -m research.speech.pretrained DIR a.wav b.wav --json
  python -m research.speech.pretrained DIR a.wav --text "WHAT WAS SAID"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows `python -m research.speech.pretrained`; None takes that of the
            process.

    Returns:
        The exit status: 0, 2 after an error, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        checkpoint = load(options.directory, language=options.language)
        chunks = {"chunk_seconds": options.chunk_seconds or None}
        for path in options.audio:
            waveform = read_speech(path, checkpoint.front_end.sample_rate)
            if options.text is None:
                found = transcribe(checkpoint, waveform, **chunks)
            else:
                found = align(checkpoint, waveform, options.text, **chunks)
            print(_json(path, found) if options.json else _lines(path, found), flush=True)
    except TrellisError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research.speech.pretrained",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="the folder of the model")
    parser.add_argument(
        "audio", metavar="AUDIO", type=Path, nargs="+", help="mono audio of any sample rate"
    )
    parser.add_argument(
        "--text",
        metavar="T",
        type=_text,
        help="what was said, if that is known: find its words",
    )
    parser.add_argument(
        "--language", metavar="L", help="of a multilingual model (MMS), such as eng or deu"
    )
    parser.add_argument(
        "--chunk-seconds",
        metavar="S",
        type=_seconds,
        default=CHUNK_SECONDS,
        help="audio of more than twice this is heard in overlapping chunks of it "
        "(default %(default)g); 0 hears everything at once",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(
            f"seconds must be 0 or a larger number, such as 30; received {text!r}"
        )
    return seconds


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(
            f"the text must have a word; received {text!r}. Leave --text out to have it recognised"
        )
    return text


def _lines(path: Path, found: Transcript) -> str:
    words = [f"{w.start:9.2f} {w.end:8.2f} {w.probability:6.2f}  {w.text}" for w in found.words]
    header = f"{'start':>9} {'end':>8} {'prob':>6}  word" if words else "  (nothing was heard)"
    return "\n".join([f"{path}: {found.text}", header, *words])


def _json(path: Path, found: Transcript) -> str:
    words = [word._asdict() for word in found.words]
    record = {"audio": str(path), "text": found.text, "words": words}
    return json.dumps(record, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
