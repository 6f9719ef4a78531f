"""N-gram models of label sequences, trained on text: for beam search, and as ARPA files.

A model is a table of log-probabilities and one of back-off weights, as an ARPA file has them:

    p(w | h) = p[h w] if that is in the table, else backoff[h] p(w | h without its first symbol)

Symbols are strings: digits, characters, words. A text begins with one "<s>" and ends with "</s>".
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp

from research.errors import ConfigError, DataError
from research.speech.beam_search import LabelAutomaton

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
Gram = tuple[str, ...]


class NGram(NamedTuple):
    """An n-gram model in back-off form.

    Attributes:
        order: n, the longest n-gram.
        log_probs: of the last symbol of each n-gram after the others, nats. ("<s>",) has none.
        backoffs: log of the back-off weight of each history that something follows, nats.
    """

    order: int
    log_probs: Mapping[Gram, float]
    backoffs: Mapping[Gram, float]

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """What can come next, "</s>" among it; sorted."""
        return tuple(sorted(gram[0] for gram in self.log_probs if len(gram) == 1))

    def log_prob(self, symbol: str, history: Sequence[str] = (BEGIN,)) -> float:
        """Log p(symbol | history), nats; a symbol outside of the vocabulary counts as "<unk>".

        Raises:
            DataError: such a symbol, and the model has no "<unk>".
        """
        if (symbol,) not in self.log_probs:
            if (UNKNOWN,) not in self.log_probs:
                raise DataError(
                    f"symbols must be in the vocabulary of the model, {' '.join(self.vocabulary)}; "
                    f"received {symbol!r}. Train with unknown=True to allow for others."
                )
            symbol = UNKNOWN
        known = self.state(history)
        backoff = 0.0
        while (*known, symbol) not in self.log_probs:
            backoff += self.backoffs.get(known, 0.0)
            known = known[1:]
        return backoff + self.log_probs[*known, symbol]

    def state(self, history: Sequence[str]) -> Gram:
        """The longest end of a history that matters to what comes next."""
        last = tuple(history)[max(len(history) - self.order + 1, 0) :]
        while last and last not in self.backoffs:
            last = last[1:]
        return last


def train_ngram(
    texts: Iterable[Sequence[str]],
    order: int,
    *,
    smoothing: Literal["kneser_ney", "dirichlet"] = "kneser_ney",
    discount: float | None = None,
    strength: float = 1.0,
    vocabulary: Iterable[str] = (),
    unknown: bool = False,
) -> NGram:
    """Count the n-grams of texts and interpolate each order with the one below.

    kneser_ney: p(w | h) = max(c(h w) - D, 0) / c(h) + D |{w: c(h w) > 0}| / c(h) p(w | h')
    dirichlet:  p(w | h) = (c(h w) + s p(w | h')) / (c(h) + s)

    with h' the history without its first symbol, and below single symbols the uniform distribution
    over the vocabulary. The counts c of Kneser and Ney below the highest order are of different
    symbols before h w, but where h begins with "<s>".

    Args:
        texts: sequences of symbols, such as the words or the characters of a sentence.
        order: n, 1 or more.
        smoothing: Kneser-Ney is for words and characters; where every n-gram of few symbols occurs,
            as with digits, "dirichlet" says less that was not counted.
        discount: D in (0, 1), of Kneser-Ney; n1 / (n1 + 2 n2) of each order if not given, with n_i
            the n-grams counted i times, or 0.5 where there are none.
        strength: s > 0, of "dirichlet": how many symbols the lower order counts for.
        vocabulary: symbols that exist besides those of the texts.
        unknown: whether "<unk>" exists too, for all others.

    Returns:
        The model; over the vocabulary, "</s>" included, probabilities sum to one after any history.

    Raises:
        ConfigError: an order, discount or strength that cannot be.
        DataError: no texts, or a symbol that is empty or has a meaning of its own.

    Example:
        >>> model = train_ngram(["ab", "aa"], 2, smoothing="dirichlet")
        >>> print(f"{math.exp(model.log_prob('a')):.3f}")  # (2 + (3 + 1/3) / 7) / (2 + 1)
        0.825
        >>> print(f"{perplexity(model, ['ab']):.2f}")
        1.83

    Sources: Kneser, Ney, "Improved Backing-off for M-gram Language Modeling", ICASSP 1995,
    interpolated as in Chen, Goodman, "An Empirical Study of Smoothing Techniques for Language
    Modeling", 1999; MacKay, Peto, "A Hierarchical Dirichlet Language Model", 1995.
    """
    if order < 1:
        raise ConfigError(f"order must be at least 1; received {order}.")
    if discount is not None and not 0 < discount < 1:
        raise ConfigError(f"discount must be between 0 and 1; received {discount}.")
    if not 0 < strength < math.inf:
        raise ConfigError(f"strength must be positive and finite; received {strength}.")
    texts = [tuple(text) for text in texts]
    symbols = set(vocabulary).union(*texts)
    _check(texts, symbols)
    symbols |= {END, UNKNOWN} if unknown else {END}
    counts = _counts(texts, order)
    probs: dict[Gram, float] = {}
    weights: dict[Gram, float] = {}
    for length in range(1, order + 1):
        counted = counts[length]
        if smoothing == "kneser_ney":
            if length < order:
                counted = _continuations(counted, counts[length + 1])
            taken = _discount(counted) if discount is None else discount
        else:
            taken = 0.0
        totals, kinds = Counter[Gram](), Counter[Gram]()
        for gram, count in counted.items():
            totals[gram[:-1]] += count
            kinds[gram[:-1]] += 1
        grams = sorted((symbol,) for symbol in symbols) if length == 1 else counted
        for gram in grams:
            history = gram[:-1]
            if smoothing == "kneser_ney":
                total, left = totals[history], taken * kinds[history]
            else:
                total, left = totals[history] + strength, strength
            below = probs[gram[1:]] if length > 1 else 1 / len(symbols)
            probs[gram] = (max(counted[gram] - taken, 0.0) + left * below) / total
            if history:
                weights[history] = left / total
    log = {gram: math.log(prob) for gram, prob in probs.items()}
    return NGram(order, log, {history: math.log(weight) for history, weight in weights.items()})


def perplexity(model: NGram, texts: Iterable[Sequence[str]]) -> float:
    """exp(-mean log p) over all symbols of the texts and the end of each.

    Raises:
        DataError: no texts, or a symbol that the model does not know.

    Example:
        >>> uniform = NGram(1, {("a",): math.log(0.5), (END,): math.log(0.5)}, {})
        >>> print(f"{perplexity(uniform, ['aaa', 'a']):.3f}")
        2.000
    """
    log_probs = [
        model.log_prob(symbol, (BEGIN, *text[:i]))
        for text in map(tuple, texts)
        for i, symbol in enumerate((*text, END))
    ]
    if not log_probs:
        raise DataError("perplexity needs at least one text; received none.")
    return math.exp(-sum(log_probs) / len(log_probs))


def label_automaton(
    model: NGram,
    classes: Sequence[str],
    *,
    weight: float = 1.0,
    bonus: float = 0.0,
    blank_id: int = 0,
) -> LabelAutomaton:
    """The model as ``beam_search`` takes it: one state for each history that it distinguishes.

    Label k after history h adds weight log p(classes[k] | h) + bonus, the end of a sequence weight
    log p("</s>" | h). Memory: states times classes.

    Args:
        model: over the symbols that the labels stand for.
        classes: the symbol of each class; what stands for the blank is not used.
        weight: of the log-probabilities.
        bonus: for each label, nats: without it a language model prefers short sequences.
        blank_id: the class that stands for no label.

    Returns:
        Scores and next states, float32 and int32.

    Raises:
        DataError: a symbol that the model does not know.

    Example:
        >>> model = train_ngram(["ab", "aa"], 2, smoothing="dirichlet")
        >>> automaton = label_automaton(model, ["", "a", "b"])
        >>> automaton.scores.shape, [f"{math.exp(score):.3f}" for score in automaton.scores[0]]
        ((3, 3), ['1.000', '0.825', '0.063'])
    """
    states = {model.state((BEGIN,)): 0}
    scores, next_states, ends = [], [], []
    for history in (waiting := [*states]):  # grows while it is gone through
        row, targets = [], []
        for k, symbol in enumerate(classes):
            if k == blank_id:
                row.append(0.0)
                targets.append(states[history])
                continue
            row.append(weight * model.log_prob(symbol, history) + bonus)
            known = symbol if (symbol,) in model.log_probs else UNKNOWN
            after = model.state((*history, known))
            if after not in states:
                states[after] = len(states)
                waiting.append(after)
            targets.append(states[after])
        scores.append(row)
        next_states.append(targets)
        ends.append(weight * model.log_prob(END, history))
    return LabelAutomaton(
        jnp.array(scores, jnp.float32),
        jnp.array(next_states, jnp.int32),
        jnp.array(ends, jnp.float32),
    )


def write_arpa(model: NGram, path: str | Path) -> None:
    """Write a model as an ARPA file, which KenLM, SRILM and ``WordDecoder`` read.

    Logarithms are to base 10, with nine digits. "<s>" has the probability that its place demands,
    -99.

    Raises:
        DataError: a symbol is empty or has white space.
    """
    for symbol in model.vocabulary:
        if symbol.split() != [symbol]:
            raise DataError(
                f"symbols of an ARPA file must have no white space; received {symbol!r}. Train on "
                "texts with another character for it, such as |."
            )
    grams = {length: [] for length in range(1, model.order + 1)}
    for gram in sorted({*model.log_probs, (BEGIN,)}):
        log_prob = -99.0 if gram == (BEGIN,) else model.log_probs[gram] / math.log(10)
        line = f"{log_prob:.9g}\t{' '.join(gram)}"
        if gram in model.backoffs:
            line += f"\t{model.backoffs[gram] / math.log(10):.9g}"
        grams[len(gram)].append(line)
    lines = ["\\data\\", *(f"ngram {n}={len(found)}" for n, found in grams.items())]
    for n, found in grams.items():
        lines += ["", f"\\{n}-grams:", *found]
    Path(path).write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")


def read_arpa(path: str | Path) -> NGram:
    """Read an ARPA file, of ours or another's.

    Raises:
        DataError: the file is not of that format, cut short, or has other numbers of n-grams than
            it says.

    Example:
        >>> import tempfile
        >>> model = train_ngram(["ab", "aa"], 2)
        >>> with tempfile.NamedTemporaryFile(suffix=".arpa") as file:
        ...     write_arpa(model, file.name)
        ...     again = read_arpa(file.name)
        >>> abs(again.log_prob("b", ["a"]) - model.log_prob("b", ["a"])) < 1e-7
        True
    """
    log_probs: dict[Gram, float] = {}
    backoffs: dict[Gram, float] = {}
    promised, found = Counter[int](), Counter[int]()
    section = None
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        fields = line.split()
        try:
            if not fields:
                continue
            if line.startswith("\\"):
                section = line.strip()
            elif section == "\\data\\":
                length, count = fields[1].split("=")
                promised[int(length)] = int(count)
            elif section is not None:
                length = int(section.removeprefix("\\").removesuffix("-grams:"))
                gram = tuple(fields[1 : 1 + length])
                log_prob, *backoff = (
                    math.log(10) * float(x) for x in (fields[0], *fields[1 + length :])
                )
                if len(gram) != length or len(backoff) > 1:
                    raise ValueError(f"{length} symbols and two numbers at most")
                found[length] += 1
                if gram != (BEGIN,):
                    log_probs[gram] = log_prob
                if backoff:
                    backoffs[gram] = backoff[0]
        except (ValueError, IndexError) as error:
            raise DataError(
                f"{path}, line {number}: not what an ARPA file has here: {line!r} ({error})."
            ) from error
    if section != "\\end\\" or not promised or found != promised:
        raise DataError(
            f"{path} must be an ARPA file that ends with \\end\\ and has as many n-grams as it "
            f"says, {dict(promised)}; found {dict(found)}, last section {section}. Is it complete?"
        )
    for gram in log_probs:  # a weight that is left out is one, and its history matters still
        if len(gram) > 1:
            backoffs.setdefault(gram[:-1], 0.0)
    return NGram(max(promised), log_probs, backoffs)


def _check(texts, symbols):
    if not texts:
        raise DataError("an n-gram model needs at least one text; received none.")
    wrong = symbols & {BEGIN, END, UNKNOWN, ""}
    if wrong:
        raise DataError(
            f"symbols must be other than {BEGIN}, {END}, {UNKNOWN} and the empty one, which have a "
            f"meaning of their own; received {sorted(wrong)} in the texts or the vocabulary."
        )


def _counts(texts, order):
    """How often each n-gram occurs, by length; "<s>" alone is none, since it is not predicted."""
    counts = {length: Counter[Gram]() for length in range(1, order + 1)}
    for text in texts:
        padded = (BEGIN, *text, END)
        for end in range(2, len(padded) + 1):
            for length in range(1, min(order, end) + 1):
                counts[length][padded[end - length : end]] += 1
    return counts


def _continuations(counted, longer):
    """Different symbols before each n-gram; of those that begin a text, how often they occur."""
    before = Counter(gram[1:] for gram in longer)
    return Counter({g: count if g[0] == BEGIN else before[g] for g, count in counted.items()})


def _discount(counted):
    frequencies = Counter(counted.values())
    once, twice = frequencies[1], frequencies[2]
    # Without either number there is nothing to estimate it from, and 1 would take everything.
    return once / (once + 2 * twice) if once and twice else 0.5
