"""All that the doctor can find: how grave each is, why it matters, what to do about it.

In the order of causes: of several that are found, the one further up explains those below it.  A
broken contract between network, loss and labels makes every later figure meaningless; a step that
is too long makes predictions look like those of unequal classes; what is only a symptom comes last.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """What is always the same of a finding."""

    severity: str
    title: str
    why: str
    remedy: str  # in any loop
    keys: tuple[str, ...]  # of the run file: those that its settings may be of
    explains: tuple[str, ...] = ()  # findings that need not be told when this one has been


CATALOGUE: dict[str, Entry] = {
    # ---- the contract of network, loss and labels
    "not-finite": Entry(
        "error",
        "the loss or a gradient is no number",
        "one NaN reaches every weight with the next update, and nothing is left to go on with",
        "lower the learning rate, clip gradients, or compute in bf16 or fp32 instead of fp16",
        ("optimizer.learning_rate", "training.precision", "training.max_grad_norm"),
    ),
    "labels-do-not-fit": Entry(
        "error",
        "labels do not fit the logits",
        "with another shape or range the loss compares what does not belong together",
        "one label a row of logits: class numbers from 0 below their width, or for several labels "
        "and for numbers floats of the shape of the logits",
        ("task", "data.labels", "head.num_labels"),
    ),
    "loss-broadcasts": Entry(
        "error",
        "the loss compares every answer with every target",
        "a shape [batch, 1] against [batch] is broadcast to [batch, batch], and the best answer is "
        "the mean of all targets, whatever the input",
        "squeeze the logits, or give the targets the shape of the logits",
        ("task",),
        explains=(
            "outputs-alike",
            "does-not-learn",
            "labels-unrelated",
            "vectors-collapse",
        ),
    ),
    "probabilities-as-logits": Entry(
        "error",
        "the loss is given probabilities in place of logits",
        "a sigmoid or softmax in the network and another one in the loss: even a sure answer is "
        "punished, and gradients all but vanish",
        "take the sigmoid or softmax out of the network; losses here take logits",
        ("task",),
        explains=("labels-unrelated",),
    ),
    "logits-are-scaled": Entry(
        "warning",
        "logits are a multiple of what the head gives",
        "a temperature in front of the loss makes answers all alike, or all sure, and gradients "
        "tiny or huge",
        "give the loss what the head gives; divide by a temperature only where answers are read",
        ("task",),
        explains=("outputs-alike", "sure-and-wrong", "labels-unrelated"),
    ),
    "loss-over-the-batch": Entry(
        "error",
        "the softmax is over the batch, not over the classes",
        "texts compete with each other for a class, in place of classes for a text",
        "softmax over the last dimension, or cross_entropy(logits, labels) of logits (batch, "
        "classes)",
        ("task",),
        explains=("labels-unrelated",),
    ),
    "loss-is-far-from-plain": Entry(
        "warning",
        "the loss is another than the plain one by far",
        "weights or a focus as strong as that leave only few examples to learn from, or make steps "
        "that a rate is not meant for",
        "weights from the frequencies of labels, a gamma of 2 at most",
        ("loss.class_weights", "loss.pos_weight", "loss.focal_gamma"),
        explains=("labels-unrelated",),
    ),
    "loss-is-a-sum": Entry(
        "warning",
        "the loss is a sum, not a mean",
        "the step grows with the number of examples, and with it what the rate means",
        "divide by the number of examples, or of tokens, that count",
        ("training.batch_size",),
    ),
    "loss-has-the-wrong-sign": Entry(
        "error",
        "the loss is made large, not small",
        "what is minimised is the negative of the loss: every update makes answers worse",
        "take the minus away; losses are minimised",
        ("loss.name",),
        explains=("labels-unrelated",),
    ),
    "padding-has-labels": Entry(
        "error",
        "the loss counts padding",
        "most of what is learnt is then the label of padding, which every batch has most of",
        "label padding with -100, and let the loss ignore that",
        ("task",),
    ),
    "texts-are-hidden": Entry(
        "error",
        "the mask hides tokens of the texts",
        "the network cannot attend to what it is to read; the mask may be the wrong way round: 1 "
        "is for real tokens, 0 for padding",
        "give the network the attention_mask that the tokenizer returns",
        ("task",),
        explains=("padding-is-seen", "outputs-alike", "does-not-learn", "labels-unrelated"),
    ),
    "padding-is-seen": Entry(
        "warning",
        "padding is not masked",
        "every token attends to padding, so that the same text gets other answers in other "
        "batches, and short texts are drowned",
        "give the network the attention_mask that the tokenizer returns",
        ("task",),
        explains=("labels-unrelated",),
    ),
    "labels-on-special-tokens": Entry(
        "warning",
        "the first token of a row, which is no word, has a label",
        "labels that are one a word, given to tokens one after the other, stand in wrong places "
        "from the first word on that is several tokens",
        "give each token the label of its word, by the tokenizer's word_ids, and -100 to [CLS], "
        "[SEP] and padding",
        ("task",),
    ),
    "pairs-without-types": Entry(
        "info",
        "both texts of a pair are of the same type",
        "the network was pretrained with 0 for the first text and 1 for the second, and has to see "
        "by itself where the second begins",
        "give the network the token_type_ids that the tokenizer returns",
        ("data.text_pair",),
    ),
    "class-is-ignored": Entry(
        "error",
        "one class is never among the labels that count",
        "an ignore_index that is the number of a class throws that class away in silence",
        "let the loss ignore -100, a number that no class has",
        ("data.labels",),
    ),
    # ---- what reaches the network
    "inputs-alike": Entry(
        "error",
        "all texts of a batch are the same to the network",
        "what cannot be told apart gets one answer: the column, or the tokenizer, is a wrong one",
        "look at the token ids of a batch; check the column of the text and the tokenizer",
        ("data.text", "model"),
        explains=(
            "outputs-alike",
            "does-not-learn",
            "labels-unrelated",
            "majority-only",
            "vectors-collapse",
            "one-batch-again",
            "labels-conflict",
        ),
    ),
    "one-batch-again": Entry(
        "error",
        "every update sees the same batch",
        "the network learns these few examples by heart, and the falling loss says nothing",
        "take the batch from the loader within the loop, and check that it is shuffled",
        ("training.seed",),
    ),
    "labels-in-runs": Entry(
        "warning",
        "batches hold one label at a time",
        "each update unlearns the label of the one before, and the last ones win",
        "shuffle the examples before every epoch; where batches are sorted by length and a label "
        "hangs on the length of its texts, sort fewer of them together",
        ("training.seed", "data.length_pool"),
        explains=("labels-unrelated",),
    ),
    # ---- what the network is
    "weights-are-constant": Entry(
        "error",
        "a matrix of the encoder holds one value throughout",
        "what goes through it is the same for every input",
        "load the checkpoint again, and look at the names of what was not found in it",
        ("model",),
        explains=("outputs-alike", "vectors-collapse", "labels-unrelated", "does-not-learn"),
    ),
    "encoder-is-fresh": Entry(
        "warning",
        "the encoder is not pretrained",
        "its weights were drawn at random: the checkpoint was not loaded, or not all of it, and a "
        "few thousand examples do not make up for that",
        "use from_pretrained, and look at the names of what was not found; where it is meant, say "
        "Doctor(pretrained=False)",
        ("model",),
        explains=("labels-unrelated",),
    ),
    "dropout-is-high": Entry(
        "warning",
        "dropout takes most of the values away",
        "what is left differs so much from update to update that nothing can be learnt of it",
        "set dropout to 0.1",
        ("training.dropout", "head.dropout"),
        explains=("outputs-alike", "labels-unrelated", "does-not-learn"),
    ),
    # ---- what an update does
    "nothing-is-trained": Entry(
        "error",
        "no weight can change",
        "every parameter is frozen, or the optimizer holds none of the network's",
        "unfreeze what is to be trained, and make the optimizer of model.parameters()",
        ("training.freeze",),
        explains=("labels-unrelated",),
    ),
    "not-in-the-optimizer": Entry(
        "error",
        "the optimizer lacks parameters that get gradients",
        "what it does not hold stays as it is, and the rest has to fit to that",
        "make the optimizer when the network is whole, of all of model.parameters(), and freeze "
        "what is not to be trained",
        ("training.freeze",),
    ),
    "no-gradient": Entry(
        "error",
        "there are no gradients",
        "the loss does not hang on the weights: it was detached, or backward was not called",
        "compute the loss of the network's own output, call backward, and the doctor before "
        "zero_grad",
        ("training.freeze",),
        explains=(
            "rate-too-low",
            "outputs-alike",
            "does-not-learn",
            "labels-unrelated",
            "majority-only",
            "weights-stand-still",
            "vectors-collapse",
        ),
    ),
    "weights-stand-still": Entry(
        "error",
        "gradients are there, but weights do not change",
        "the optimizer does not step, its rate is 0, or it holds copies of the weights",
        "call optimizer.step() after backward, and the schedule's step behind it",
        ("optimizer.learning_rate", "schedule.name"),
        explains=(
            "rate-too-low",
            "outputs-alike",
            "does-not-learn",
            "labels-unrelated",
            "majority-only",
            "vectors-collapse",
        ),
    ),
    "gradients-pile-up": Entry(
        "error",
        "gradients of earlier updates are still there",
        "without zero_grad each update repeats all before it, ever longer",
        "call optimizer.zero_grad() once an update",
        ("training.accumulate",),
        explains=(
            "rate-too-high",
            "outputs-alike",
            "vectors-collapse",
            "sure-and-wrong",
            "pretraining-is-lost",
            "does-not-learn",
            "labels-unrelated",
            "majority-only",
        ),
    ),
    "head-starts-large": Entry(
        "info",
        "the head starts with answers that are far too sure",
        "a fresh head's loss is about the logarithm of the number of classes; far above, gradients "
        "are long: AdamW and clipping stand that, plain descent does not",
        "draw the head's weights with a standard deviation of about 0.02",
        ("head.init_std", "head.bias_from_prior"),
        explains=("sure-and-wrong",),
    ),
    "targets-not-scaled": Entry(
        "error",
        "targets are far from where a fresh head's answers are",
        "a head answers around 0 with a spread of about 1: for long all that is learnt is the "
        "mean of the targets, the same for every input",
        "subtract the targets' mean and divide by their standard deviation, or start the bias at "
        "their mean",
        ("task",),
        explains=(
            "outputs-alike",
            "does-not-learn",
            "labels-unrelated",
            "vectors-collapse",
        ),
    ),
    "weights-shrink": Entry(
        "warning",
        "weights lose their length",
        "decay takes away more than is learnt, until nothing of the pretrained network is left",
        "lower the weight decay to 0.01, with AdamW, whose decay does not hang on the gradients",
        ("optimizer.weight_decay", "optimizer.l1", "optimizer.learning_rate"),
        explains=(
            "rate-too-high",
            "pretraining-is-lost",
            "outputs-alike",
            "does-not-learn",
            "labels-unrelated",
        ),
    ),
    "rate-too-high": Entry(
        "error",
        "training collapsed: its steps are too long",
        "what the network knew is overwritten faster than anything is learnt, and one answer for "
        "every input is what is left",
        "lower the learning rate to 1e-5 … 1e-4, with a warmup and clipped gradients, and start "
        "anew: what was overwritten does not come back",
        ("optimizer.learning_rate", "schedule.warmup_fraction", "training.max_grad_norm"),
        explains=(
            "outputs-alike",
            "vectors-collapse",
            "sure-and-wrong",
            "pretraining-is-lost",
            "does-not-learn",
            "labels-unrelated",
            "majority-only",
        ),
    ),
    "rate-is-unusual": Entry(
        "warning",
        "the rate is above those that fine-tune a BERT",
        "published rates are 2e-5 to 5e-5, of small models 1e-4; above 2e-4 pretraining is often "
        "overwritten",
        "lower the learning rate, or that of the encoder alone",
        ("optimizer.learning_rate", "optimizer.head_learning_rate"),
        explains=("labels-unrelated",),
    ),
    "rate-too-low": Entry(
        "warning",
        "nothing is learnt: steps are too short",
        "at this rate the weights will hardly have moved by the end",
        "raise the learning rate to 1e-5 … 1e-4, of SGD to about 1e-2, and see that neither eps "
        "nor a max_grad_norm makes steps short",
        (
            "optimizer.learning_rate",
            "optimizer.head_learning_rate",
            "training.epochs",
            "training.max_grad_norm",
        ),
        explains=(
            "outputs-alike",
            "does-not-learn",
            "labels-unrelated",
            "majority-only",
            "vectors-collapse",
        ),
    ),
    "cannot-overfit": Entry(
        "warning",
        "one batch cannot be learnt by heart",
        "a network that learns at all brings the loss of a few examples near 0; one that does not "
        "has no gradient, the wrong labels, or the wrong rate",
        "mend what else is found; raise the rate where nothing is",
        ("optimizer.learning_rate", "training.freeze"),
    ),
    "gradients-explode": Entry(
        "warning",
        "some gradients are a hundred times longer than usual",
        "one such update can undo all before it",
        "clip gradients at a norm of 1",
        ("training.max_grad_norm", "schedule.warmup_fraction"),
    ),
    "layer-is-dead": Entry(
        "warning",
        "a layer gets no gradient",
        "what is in front of it cannot learn either: it was detached, or its outputs are saturated",
        "look for detach(), no_grad() and saturated activations behind it; freeze it by "
        "requires_grad if that was meant",
        ("training.freeze", "head.init_std"),
        explains=("labels-unrelated",),
    ),
    "dropout-is-off": Entry(
        "warning",
        "the network trains in evaluation mode",
        "dropout is off, and small data is learnt by heart the sooner",
        "call model.train() before each epoch: an evaluation leaves it in evaluation mode",
        ("training.dropout",),
    ),
    "evaluated-in-training-mode": Entry(
        "warning",
        "the network is evaluated in training mode",
        "dropout makes its answers worse than they are, and other ones every time",
        "call model.eval() before an evaluation, and model.train() behind it",
        ("training.dropout",),
    ),
    "frozen-with-much-data": Entry(
        "warning",
        "the encoder is frozen though there is much data",
        "a head on vectors that were made for something else learns only what they hold already",
        "train the encoder too, or its upper layers",
        ("training.freeze", "training.freeze_until_step", "optimizer.layer_decay"),
    ),
    "frozen-but-dropping": Entry(
        "warning",
        "frozen layers drop values at random",
        "what cannot learn is only made noisy by dropout",
        "put frozen modules into evaluation mode",
        ("training.freeze",),
    ),
    # ---- what the data is like
    "texts-are-cut": Entry(
        "warning",
        "much of the texts is cut away",
        "what stands behind max_length is never seen, in training and later",
        "raise the limit, or read long texts in windows",
        ("data.max_length", "data.long_text"),
        explains=("validation-is-train", "labels-conflict", "rows-repeat", "inputs-alike"),
    ),
    "labels-permuted": Entry(
        "error",
        "validation labels do not mean what training labels mean",
        "answers that are wrong in one fixed way are right under other names",
        "give both files the same names of labels, in the same order",
        ("data.labels", "data.validation"),
        explains=(
            "no-better-than-chance",
            "learnt-by-heart",
        ),
    ),
    "settings-are-extreme": Entry(
        "warning",
        "a setting is far from what is usual",
        "it may be meant so; more often a digit or a sign is wrong",
        "compare with the defaults: minibert train --print-config TASK",
        (
            "training.dropout",
            "head.dropout",
            "loss.label_smoothing",
            "schedule.warmup_fraction",
            "training.max_grad_norm",
            "optimizer.weight_decay",
            "optimizer.layer_decay",
            "optimizer.momentum",
            "head.init_std",
            "masking.fraction",
            "augmentation.delete",
            "augmentation.mask",
            "augmentation.swap",
            "training.batch_size",
            "loss.focal_gamma",
            "optimizer.l1",
        ),
    ),
    "few-updates": Entry(
        "warning",
        "the run makes hardly any update",
        "a fresh head alone takes dozens of updates before it says anything",
        "train for more epochs, or in smaller batches",
        ("training.epochs", "training.batch_size"),
    ),
    "one-label": Entry(
        "error",
        "all examples have the same label",
        "there is nothing to be told apart",
        "look whether the column of the label is the right one",
        ("data.label", "data.train"),
    ),
    "metric-hides-classes": Entry(
        "warning",
        "the figure that decides says little about rare classes",
        "who always gives the most frequent label has a high accuracy too, and such a network may "
        "be the one that is kept",
        "choose by macro-F1, which weighs every class alike",
        ("training.metric",),
    ),
    "evaluation-stands-still": Entry(
        "warning",
        "evaluations give the same figures to the last digit, though the network changed",
        "what is evaluated is not what is trained: a copy of before, or answers that were kept",
        "evaluate the network that the optimizer holds, and compute its answers anew each time",
        ("training.evaluate_every",),
    ),
    "pairs-are-alike": Entry(
        "error",
        "both texts of a pair are the same",
        "what a pair is about is then not in the input: one column was read twice",
        "check which columns the two texts come from",
        ("data.text", "data.text_pair"),
        explains=("outputs-alike", "labels-unrelated", "does-not-learn", "rows-repeat"),
    ),
    "classes-as-numbers": Entry(
        "info",
        "targets are whole numbers of few values",
        "where they are names of classes a regression takes their order and distances for real",
        "for classes take as many logits as there are, and cross-entropy; for grades all is well",
        ("task",),
    ),
    "targets-are-far-apart": Entry(
        "warning",
        "a few targets are far from all others",
        "their square outweighs all the rest: what is learnt is where they are",
        "look at these rows; where they are right, take the loss huber or l1, or their logarithm",
        ("loss.name", "data.label", "loss.huber_delta"),
    ),
    "validation-is-small": Entry(
        "warning",
        "validation has too few examples to choose by",
        "of a few dozen examples a figure is chance: the best checkpoint is the luckiest",
        "validate on a few hundred examples, say a tenth of train",
        ("data.validation", "data.validation_rows"),
    ),
    "rows-repeat": Entry(
        "warning",
        "many rows of train are the same",
        "what stands there twice counts twice, and an epoch has fewer examples than it seems",
        "leave repetitions out, unless their number says how much they count",
        ("data.train",),
        explains=("labels-unrelated",),
    ),
    "sides-differ": Entry(
        "warning",
        "labels of validation are of other frequencies than those of training",
        "the best checkpoint is then chosen on other data than was trained on: rows were not "
        "shuffled before they were divided, or come from elsewhere",
        "let a share of train be split off, which keeps the shares of labels",
        ("data.validation", "data.train_rows"),
    ),
    "labels-conflict": Entry(
        "warning",
        "equal texts have different labels",
        "no network can be right about both, and what it learns of one the other undoes",
        "look at these rows: labels may be noisy, or stand in another column",
        ("data.label", "data.text", "data.text_pair"),
        explains=("labels-unrelated",),
    ),
    "validation-is-train": Entry(
        "warning",
        "validation texts are among those of training",
        "figures on texts that were trained on say nothing about new ones",
        "take them out, or let a share of train be split off, which keeps equal texts together",
        ("data.validation", "data.group"),
    ),
    "label-in-the-text": Entry(
        "warning",
        "a single token of the text tells the label",
        "the network will look at nothing else, and the token may be missing where it is used",
        "check that the text column does not hold the label, and that no marker gives it away",
        ("data.text",),
    ),
    "texts-empty": Entry(
        "warning",
        "texts have no words",
        "of an empty text nothing can be learnt but how frequent its label is",
        "leave such rows out, or look whether the column of the text is the right one",
        ("data.text", "data.bad_rows"),
    ),
    "vocabulary-does-not-fit": Entry(
        "warning",
        "the tokenizer does not know these words",
        "words that become [UNK], or single letters, lost what the network learnt of them",
        "take a model whose vocabulary is of the language and the kind of the texts, and its own "
        "tokenizer",
        ("model", "data.encoding"),
    ),
    "never-predicted": Entry(
        "warning",
        "no label is ever predicted",
        "where each label is rare, the least loss at first is to say no to all, and at a threshold "
        "of 0.5 it may stay so for the whole training though the loss falls",
        "weigh the presence of labels, or fit a threshold for each on validation data "
        "(minibert evaluate RUN --fit-thresholds)",
        ("loss.pos_weight", "loss.name", "loss.focal_alpha", "head.bias_from_prior"),
        explains=("does-not-learn", "labels-unrelated", "outputs-alike"),
    ),
    "always-predicted": Entry(
        "warning",
        "nearly every label is predicted for every text",
        "a weight of presence that is too large makes it cheap to say yes to all",
        "lower the weight, or fit a threshold for each label on validation data "
        "(minibert evaluate RUN --fit-thresholds)",
        ("loss.pos_weight", "loss.focal_alpha"),
    ),
    "majority-only": Entry(
        "warning",
        "only the most frequent label is predicted",
        "the loss counts every example alike, so the rare labels are cheap to be wrong about",
        "weigh the classes, draw the rare ones more often, or choose a focal loss; judge by "
        "macro-F1",
        ("loss.class_weights", "data.sampling", "loss.name", "training.metric"),
        explains=(
            "outputs-alike",
            "does-not-learn",
            "labels-unrelated",
        ),
    ),
    "classes-unequal": Entry(
        "info",
        "labels are of very unequal number",
        "accuracy is high for who always says the most frequent one",
        "judge by macro-F1; weigh the classes if the rare ones matter",
        ("loss.class_weights", "loss.pos_weight", "data.sampling"),
    ),
    # ---- what can be seen of it, whatever the cause
    "labels-unrelated": Entry(
        "warning",
        "steps are of usual size, and nothing is learnt",
        "what the labels say cannot be told from what the network sees: labels of other rows, or "
        "guessed ones, or texts of another column, or of another vocabulary",
        "print ten texts as they reach the network, tokenizer.decode(ids), beside their labels; "
        "where these are right, see whether one batch can be learnt by heart (minibert doctor)",
        ("data.text", "data.label", "data.text_pair"),
        explains=("outputs-alike", "does-not-learn", "vectors-collapse"),
    ),
    "outputs-alike": Entry(
        "warning",
        "every input gets the same answer",
        "the network does not look at its input: the vectors of different texts have become one, "
        "or never were apart",
        "check masks and inputs first, then the rate; overfit one batch to see whether it can "
        "learn at all",
        ("optimizer.learning_rate", "schedule.warmup_fraction", "optimizer.head_learning_rate"),
        explains=("does-not-learn",),
    ),
    "vectors-collapse": Entry(
        "warning",
        "the vectors of all texts point the same way",
        "a head cannot tell apart what the encoder does not",
        "lower the rate, warm up longer, and start anew",
        ("optimizer.learning_rate", "schedule.warmup_fraction"),
    ),
    "sure-and-wrong": Entry(
        "warning",
        "answers are sure, and wrong",
        "saturated probabilities have no gradient where they are right, and a huge one where not",
        "lower the head's rate, smooth the labels, or draw the head smaller",
        ("optimizer.head_learning_rate", "loss.label_smoothing", "head.init_std"),
    ),
    "pretraining-is-lost": Entry(
        "warning",
        "the encoder is far from where it started",
        "what was learnt of millions of texts is given up for a few thousand",
        "lower the learning rate, warm up, clip, or freeze the lower layers",
        (
            "optimizer.learning_rate",
            "schedule.warmup_fraction",
            "training.freeze",
            "optimizer.layer_decay",
        ),
    ),
    "learnt-by-heart": Entry(
        "warning",
        "training examples are learnt by heart",
        "the loss on them falls while that on others rises, and the figures fall with it",
        "stop earlier, train for fewer epochs, or regularise: weight decay, dropout, augmentation",
        (
            "training.early_stopping_patience",
            "training.epochs",
            "optimizer.weight_decay",
            "training.dropout",
            "augmentation.delete",
        ),
    ),
    "no-better-than-chance": Entry(
        "warning",
        "validation is no better than guessing",
        "what is learnt of the training examples does not carry over: labels may not hang on the "
        "texts, or belong to other rows",
        "check that texts and labels belong together in both files",
        ("data.text", "data.label"),
    ),
    "does-not-learn": Entry(
        "warning",
        "the loss does not fall",
        "it is still what the frequencies of the labels alone would give",
        "overfit one batch to see whether it can learn at all; check that labels belong to their "
        "texts; then try another rate",
        ("optimizer.learning_rate", "training.epochs", "training.freeze"),
    ),
    "too-good": Entry(
        "info",
        "validation is all but perfect",
        "that happens with easy data, and with labels that leak into the texts",
        "look at what tells the labels apart",
        ("data.text",),
    ),
    "clipped-always": Entry(
        "info",
        "nearly every update is clipped",
        "the rate then says how long a step is, and the gradient only where it goes",
        "nothing needs to be done; a higher max_grad_norm lets long gradients through",
        ("training.max_grad_norm",),
    ),
}
