"""How metrics are named and written: fractions as per cent, correlations and losses as they are."""

from elastic_cnn.measure.paired import MeanSpread, PairedDifference

TITLES = {
    "top1_error": "top-1 error (%)",
    "top5_error": "top-5 error (%)",
    "error_small": "error, 8-14.5 px (%)",
    "error_medium": "error, 14.5-26 px (%)",
    "error_large": "error, 26-48 px (%)",
    "map": "mAP (%)",
    "f1_per_class": "F1 per class (%)",
    "f1_overall": "F1 overall (%)",
    "miou": "mIoU (%)",
    "miou_small": "mIoU of small and thin things (%)",
    "miou_large": "mIoU of the other classes (%)",
    "pixel_accuracy": "pixel accuracy (%)",
    "policy_mean_rho": "policy and size: mean abs. rank correlation",
    "untrained_policy_mean_rho": "the same, untrained",
    "policy_most_rho": "policy and size: greatest abs. rank correlation",
    "untrained_policy_most_rho": "the same of the greatest, untrained",
    "policy_size_r2": "log size told by the policy (R2)",
    "untrained_policy_size_r2": "the same R2, untrained",
    "train_loss_end": "training loss, last quarter",
}


def metric_title(metric: str) -> str:
    """What tables call a metric."""
    if metric in TITLES:
        return TITLES[metric]
    name, at, side = metric.partition("_at_")
    if at:
        return f"{metric_title(name).removesuffix(' (%)')} at {side} px (%)"
    return metric.replace("_", " ") + (" (%)" if is_fraction(metric) else "")


def is_fraction(metric: str) -> bool:
    """Whether the metric is a part of one, which is written in per cent."""
    return "policy" not in metric and "loss" not in metric


def in_units(metric: str, value: float) -> float:
    """The value as it is written: per cent for fractions."""
    return 100 * value if is_fraction(metric) else value


def show_spread(metric: str, spread: MeanSpread | None) -> str:
    """`12.34 ± 0.56 (3)`: mean, standard deviation and number of seeds."""
    if spread is None:
        return ""
    deviation = "" if spread.deviation is None else f" ± {in_units(metric, spread.deviation):.2f}"
    return f"{in_units(metric, spread.mean):.2f}{deviation} ({spread.count})"


def show_difference(metric: str, difference: PairedDifference) -> str:
    """`-1.20 [-2.00, -0.40]`: mean and bootstrap interval."""
    mean = f"{in_units(metric, difference.mean):+.2f}"
    return f"{mean} {show_interval(metric, difference.low, difference.high)}".rstrip()


def show_interval(metric: str, low: float | None, high: float | None) -> str:
    """`[-2.00, -0.40]`, or nothing where there is none."""
    if low is None or high is None:
        return ""
    return f"[{in_units(metric, low):+.2f}, {in_units(metric, high):+.2f}]"
