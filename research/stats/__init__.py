"""Intervals, tests and curves for the tables and figures of a report; the statistics are scipy's.

Sources of chance are kept apart. Seeds repeat the training: few of them, so their mean gets a
Student t interval, and two methods on the same seeds are compared in pairs. Studies repeat the
search as well, and have nothing in common: Welch's test. Utterances repeat the
measurement: many of them, of unequal length, so an error rate gets a bootstrap interval that
resamples whole utterances. Where both are random, trainings and utterances are resampled together.
The points of a search repeat neither: what they are worth is the best
of k.
"""

from research.stats.best_of import BestOf, best_of, expected_best
from research.stats.error_rates import (
    UtteranceErrors,
    difference_interval,
    error_rate,
    error_rate_interval,
    ratio_interval,
    same_utterances,
    utterance_errors,
)
from research.stats.independent import compare_independent, welch
from research.stats.intervals import (
    UNKNOWN,
    Interval,
    bootstrap_interval,
    mean_and_deviation,
    mean_interval,
    proportion_interval,
)
from research.stats.paired import Comparison, compare, holm
from research.stats.profiles import (
    performance_profile,
    profile_scores,
    time_ratios,
    within_reach,
)
from research.stats.ranks import Ranks, agreement, rank_stability
from research.stats.survival import (
    Curve,
    Times,
    independent_time_ratio,
    log_rank,
    median_interval,
    median_time,
    reached_curve,
    reached_interval,
    restricted_mean,
    time_ratio,
    times,
)
from research.stats.trainings import (
    PairedDifference,
    Unit,
    trainings_difference,
    trainings_interval,
)

__all__ = [
    "UNKNOWN",
    "BestOf",
    "Comparison",
    "Curve",
    "Interval",
    "PairedDifference",
    "Ranks",
    "Times",
    "Unit",
    "UtteranceErrors",
    "agreement",
    "best_of",
    "bootstrap_interval",
    "compare",
    "compare_independent",
    "difference_interval",
    "error_rate",
    "error_rate_interval",
    "expected_best",
    "holm",
    "independent_time_ratio",
    "log_rank",
    "mean_and_deviation",
    "mean_interval",
    "median_interval",
    "median_time",
    "performance_profile",
    "profile_scores",
    "proportion_interval",
    "rank_stability",
    "ratio_interval",
    "reached_curve",
    "reached_interval",
    "restricted_mean",
    "same_utterances",
    "time_ratio",
    "time_ratios",
    "times",
    "trainings_difference",
    "trainings_interval",
    "utterance_errors",
    "welch",
    "within_reach",
]
