"""Corpora in Common Voice's layout: `clips/` beside tables such as `train.tsv`.

A table has the columns client_id, path and sentence among others, with tabs between them and no
quoting. Mozilla Common Voice: Ardila et al. 2020, arXiv:1912.06670, CC0, one folder a language.
"""

import csv
import os
from pathlib import Path

from research.data.utterances import Corpus, Utterance, check_splits, describe_audio, make_corpus
from research.errors import DataError

_COLUMNS = ("client_id", "path", "sentence")


def load_common_voice(
    folder: str | os.PathLike[str], splits: tuple[str, ...] = ("train", "dev", "test")
) -> dict[str, Corpus]:
    """Load splits of one language.

    Args:
        folder: of the language, with `clips/` and the tables.
        splits: names of tables, without .tsv.

    Returns:
        A corpus for each split, by its name. Transcripts have case and punctuation as published.

    Raises:
        DataError: a table or clip is missing, damaged or empty, a sentence is empty, a clip occurs
            twice, or the same speaker (client_id) in two of the splits.
    """
    folder = Path(folder)
    if not (folder / "clips").is_dir():
        raise DataError(
            f"Common Voice must have its audio in {folder / 'clips'}, but there is no such folder; "
            "unpack the archive of a language and give the folder that holds clips/"
        )
    corpora = {
        split: make_corpus(split, _read_table(folder, split), f"Common Voice {folder.name} {split}")
        for split in splits
    }
    check_splits(corpora)
    return corpora


def _read_table(folder: Path, split: str) -> list[Utterance]:
    table = folder / f"{split}.tsv"
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{table} must have the columns {', '.join(_COLUMNS)}, but has no "
                    f"{', '.join(missing)}; is it a table of Common Voice?"
                )
            return [_read_row(folder, table, rows.line_num, row) for row in rows]
    except FileNotFoundError as error:
        raise DataError(
            f"the split {split!r} must have a table, but there is no {table}; choose another split"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} must be a table in UTF-8, but it is not ({error})") from error


def _read_row(folder: Path, table: Path, line: int, row: dict) -> Utterance:
    speaker, path, sentence = (row[name] or "" for name in _COLUMNS)
    whole = None not in row and None not in row.values()  # csv's sign for too many and too few
    if not whole or not speaker or not path or Path(path).name != path:
        raise DataError(
            "a row must have a cell for each column, among them a client_id and the name of a "
            f"clip, but line {line} of {table} has {speaker!r} and {path!r}; the table is damaged, "
            "fetch it again"
        )
    return describe_audio(path, folder / "clips" / path, sentence, speaker)
