"""Is what an update does to the network of the right size, and does it reach all of it?"""

import math
import statistics

from minibert.doctor.findings import Finding, finding
from minibert.doctor.history import History
from minibert.doctor.probe import Look, is_encoder

# Of a layer's length, an update. Fine-tuning moves about 1e-3, training from nothing 1e-2.
_LONG_STEP, _LONG_STEP_FRESH = 1e-2, 5e-2
_SHORT_STEP = 1e-5
# A rate of Adam that fine-tunes BERTs; the published ones are 2e-5 to 5e-5, MiniLM's 1e-4.
_USUAL_RATE = 1e-4
_LOOKS = 3


def too_high(history: History) -> Finding | None:
    """Long steps, and nothing to show for them."""
    if history.step < 10 or len(history.looks) < 2 or not history.signals:
        return None
    step, (part, drift) = history.encoder_moves(100), history.encoder_drift()
    long = _LONG_STEP if history.pretrained else _LONG_STEP_FRESH
    if step < long and (drift < 0.5 or not history.pretrained):
        return None
    n = min(10, history.step)
    plain, chance = history.plain_loss(n), history.chance_loss(n)
    recent = history.last(n)
    if recent[-1].kind == "numbers":
        target = statistics.fmean(each.target_spread for each in recent)
        blind = history.spread(n) < 0.1 * target
        said = f"answers spread by {history.spread(n):.2g}, targets by {target:.2g}"
    else:
        answers = history.answer_counts(n)
        blind = float(answers.max()) >= 0.99 * max(1.0, float(answers.sum()))
        said = "one answer for nearly every input" if blind else "answers are no better than chance"
    exploded = plain > 3 * max(chance, history.first.plain_loss if history.first else chance)
    if plain < 0.97 * chance or not (blind or exploded or history.is_past(50)):
        return None
    rate = history.rates[-1]
    lower = min(_USUAL_RATE, rate / 10)
    settings = {"optimizer.learning_rate": f"{lower:.0e}"}
    if not history.warmup:
        settings["schedule.warmup_fraction"] = "0.1"
    if history.setting("training.max_grad_norm", 1.0) is None:
        settings["training.max_grad_norm"] = "1.0"
    return finding(
        "rate-too-high",
        f"an update at rate {rate:.1e} moved a layer by up to {step:.1%} of its length, {part} is "
        f"{drift:.0%} away from its start, and {said}: the loss of the last {n} updates is "
        f"{plain:.3g}, label frequencies alone give {chance:.3g}",
        settings=settings,
    )


def too_low(history: History) -> Finding | None:
    """Steps so short that the weights stay where they are, and nothing is learnt."""
    if not history.is_past(50) or len(history.looks) < _LOOKS or history.has_learnt(30):
        return None
    usual = max(_usual_move(look) for look in history.looks)  # later ones may be of a lower rate
    if not 0 < usual < _SHORT_STEP or history.is_warming_up():
        return None
    rate = history.rate()
    far = usual * (history.total or history.step)
    settings = {"optimizer.learning_rate": f"{_USUAL_RATE:.0e}"} if rate < _USUAL_RATE / 2 else {}
    if (history.setting("training.max_grad_norm") or 1.0) < 1e-2:  # below what AdamW divides by
        settings["training.max_grad_norm"] = "1.0"
    by = f" of {history.optimizer}" if history.optimizer else ""
    norms = [math.hypot(*look.gradients.values()) for look in history.looks[-_LOOKS:]]
    is_clipped = max(norms) < 1e-2 and max(norms) - min(norms) < 0.02 * max(norms)
    clipped = f"; each gradient has the norm {norms[-1]:.2g}, as if clipped" if is_clipped else ""
    return finding(
        "rate-too-low",
        f"at rate {rate:.1e}{by} an update moves a layer by at most {usual:.1e} of its "
        f"length, {far:.1e} by the end{clipped}; the loss of the last 30 updates is "
        f"{history.loss(30):.4g}, at the beginning {history.begins_with():.4g}",
        settings=settings,
    )


def _usual_move(look: Look) -> float:
    """How far an update took parts that are trained: the median, of the encoder's if any are."""
    trained = {part: look.moved[part] for part in look.gradients}
    encoder = [value for part, value in trained.items() if is_encoder(part)]
    return statistics.median(encoder or list(trained.values()) or [0.0])


def large_head(history: History) -> Finding | None:
    """A first loss that only a head with large answers can have."""
    first = history.first
    if first is None or first.kind == "numbers" or history.step < 3 or first.n_rows < 4:
        return None
    expected = math.log(first.n_labels) if first.kind == "classes" else math.log(2)
    if first.plain_loss < 2 * expected + 0.5:
        return None
    return finding(
        "head-starts-large",
        f"the first loss is {first.plain_loss:.3g}, expected about {expected:.3g} of a fresh head; "
        f"answers spread by {first.spread:.3g} in log-odds",
        settings={"head.init_std": "0.02"},
    )


def unscaled_targets(history: History) -> Finding | None:
    """Numbers that are far from 0, or far apart, where answers still are not."""
    found = history.last(10)
    if len(found) < 10 or found[0].kind != "numbers":
        return None
    spread = statistics.fmean(each.target_spread for each in found)
    mean = statistics.fmean(each.target_mean for each in found)
    answered = statistics.fmean(each.answer_mean for each in found)
    gap = abs(mean - answered)
    if not (spread > 5 or gap > 3 * spread + 1):
        return None
    if history.has_learnt(10):
        return None
    return finding(
        "targets-not-scaled",
        f"targets have mean {mean:.3g} and spread {spread:.3g}, answers mean {answered:.3g} and "
        f"spread {history.spread(10):.2g}",
    )


def standing_still(history: History) -> Finding | None:
    """Gradients, but no movement at all in several looks."""
    looks = history.looks[-_LOOKS:]
    if len(looks) < _LOOKS or not history.is_past(15):
        return None
    if any(value for look in looks for value in look.moved.values()):
        return None
    if not any(look.gradients for look in looks):
        return None
    steps, rate = looks[-1].step - looks[0].step, history.rates[-1]
    why = "the rate is 0" if not rate else f"though the rate is {rate:.1e}"
    return finding(
        "weights-stand-still",
        f"no weight changed in {steps} updates, {why}; the gradient's norm is "
        f"{max(looks[-1].gradients.values()):.2g}",
    )


def no_gradient(history: History) -> Finding | None:
    looks = history.looks[-2:]
    if len(looks) < 2 or any(look.gradients for look in looks):
        return None
    return finding(
        "no-gradient", f"no parameter had a gradient at updates {looks[0].step} and {looks[1].step}"
    )


def dead_layer(history: History) -> Finding | None:
    """Parts without a gradient, or with next to none, where others have one."""
    looks = history.looks[-_LOOKS:]
    if len(looks) < _LOOKS or not all(look.gradients for look in looks):
        return None
    dead: set[str] | None = None
    for look in looks:
        usual = statistics.median(look.gradients.values())
        low = {part for part, norm in look.gradients.items() if norm <= 1e-6 * usual}
        low |= set(look.missing) - {"pooler"}  # which many tasks have no use for
        dead = low if dead is None else dead & low
    if not dead:
        return None
    usual = statistics.median(looks[-1].gradients.values())
    return finding(
        "layer-is-dead",
        f"{', '.join(sorted(dead)[:4])}: no gradient in {_LOOKS} looks, where the usual norm is "
        f"{usual:.2g}",
    )


def exploding(history: History) -> Finding | None:
    """Gradients that are again and again a hundred times as long as usual."""
    norms = [math.hypot(*look.gradients.values()) for look in history.looks if look.gradients]
    if len(norms) < 10 or history.setting("training.max_grad_norm") is not None:
        return None
    usual = statistics.median(norms)
    long = [norm for norm in norms[2:] if norm > 100 * usual]
    if len(long) < 2:
        return None
    return finding(
        "gradients-explode",
        f"{len(long)} of {len(norms)} gradients that were looked at are over 100 times as long as "
        f"usual: up to {max(long):.2g}, where the median is {usual:.2g}",
        settings={"training.max_grad_norm": "1.0"},
    )


def shrinking(history: History) -> Finding | None:
    """Weights that lose their length: decay outweighs what is learnt."""
    if not history.looks or not history.pretrained:
        return None
    length, part = min(
        ((v, k) for k, v in history.looks[-1].length.items() if is_encoder(k)), default=(1.0, "")
    )
    if length > 0.7:
        return None
    return finding(
        "weights-shrink",
        f"{part} has {length:.0%} of the length that it started with after {history.step} updates",
        settings={"optimizer.weight_decay": "0.01"},
    )


def drifted(history: History) -> Finding | None:
    """An encoder that is far from its pretraining though it learns."""
    part, drift = history.encoder_drift()
    if not history.pretrained or drift < 0.5 or not history.is_past(20):
        return None
    return finding(
        "pretraining-is-lost",
        f"{part} is {drift:.0%} of its length away from where it started, after {history.step} "
        f"updates at rates up to {history.rate():.1e}",
        settings={"optimizer.learning_rate": f"{min(_USUAL_RATE, history.rate() / 10):.0e}"},
    )


def evaluation_mode(history: History) -> Finding | None:
    """Dropout that never drops."""
    modes = history.modes[-2:]
    if len(modes) < 2 or any(each.training or not each.n_dropouts for each in modes):
        return None
    return finding(
        "dropout-is-off",
        f"at update {history.step} no module is in training mode; {modes[-1].n_dropouts} dropouts "
        "are idle",
    )


def frozen_dropping(history: History) -> Finding | None:
    modes = history.modes[-2:]
    if len(modes) < 2 or not all(each.n_frozen for each in modes):
        return None
    return finding(
        "frozen-but-dropping",
        f"{modes[-1].n_frozen} dropouts of frozen modules are in training mode",
    )


RULES = (
    too_high, too_low, large_head, unscaled_targets, standing_still, no_gradient, dead_layer,
    exploding, shrinking, drifted, evaluation_mode, frozen_dropping,
)  # fmt: skip
