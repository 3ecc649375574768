"""The reference recipe of the ablation, and what each technique changes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Technique(NamedTuple):
    """What a run differs in: a sentence for the table, and options of the command line."""

    text: str
    options: tuple[str, ...]


REFERENCE = Technique(
    "450 steps of masked tokens on all rows, 2 epochs of labels, batches of 32",
    (
        "--validation.num_folds=3",
        "--mlm.num_train_epochs=0.24",
        "--mlm.batch_size=32",
        "--mlm.learning_rate=4e-4",
        "--mlm.num_evaluations=1",
        "--pretrain.num_train_epochs=0",
        "--finetune.num_train_epochs=2",
        "--finetune.batch_size=32",
        "--finetune.learning_rate=1e-4",
        "--finetune.num_evaluations=2",
        "--finetune.keep=last",
    ),
)
"""On 60,000 pairs, of which a third of 7,000 labelled ones are held out."""

TECHNIQUES: dict[str, Technique] = {
    "mask-30": Technique("30 % of the tokens are predicted", ("--mlm.mlm_probability=0.3",)),
    "embedding-rate-4": Technique(
        "the token embedding learns four times as fast", ("--mlm.embedding_rate=4",)
    ),
    "joint": Technique(
        "one joint stage of as many steps in place of masked tokens alone",
        (
            "--mlm.num_train_epochs=0",
            "--pretrain.num_train_epochs=0.24",
            "--pretrain.batch_size=32",
            "--pretrain.learning_rate=4e-4",
            "--pretrain.num_evaluations=1",
        ),
    ),
    "fgm": Technique("FGM, epsilon 0.25", ("--finetune.adversarial.kind=fgm",)),
    "ema": Technique(
        "EMA, decay 0.98", ("--finetune.average.kind=ema", "--finetune.average.decay=0.98")
    ),
    "r-drop": Technique("R-Drop, weight 1", ("--finetune.r_drop_weight=1",)),
    "n-grams": Technique("n-grams of 1 to 3 are masked whole", ("--mlm.mask_unit=ngram",)),
    "words": Technique("words by mutual information masked whole", ("--mlm.mask_unit=word",)),
    "label-smoothing": Technique("a tenth of a label spread", ("--finetune.label_smoothing=0.1",)),
    "layer-decay": Technique("rates fall by 0.8 a layer", ("--finetune.layer_decay=0.8",)),
    "token-noise": Technique(
        "a tenth of the tokens corrupted while labels are learned",
        ("--finetune.mlm_probability=0.1",),
    ),
    "pgd": Technique("PGD, three steps", ("--finetune.adversarial.kind=pgd",)),
    "awp": Technique(
        "AWP, 0.005 of a matrix's length",
        ("--finetune.adversarial.kind=awp", "--finetune.adversarial.epsilon=0.005"),
    ),
    "swa": Technique(
        "mean of the last four of eight evaluations",
        ("--finetune.average.kind=swa", "--finetune.num_evaluations=8"),
    ),
    "lookahead": Technique("Lookahead", ("--finetune.average.kind=lookahead",)),
    "classifier": Technique(
        "a classifier over [CLS] and mean, five dropout masks",
        ("--model.head=classifier", "--model.pooling=cls-mean", "--model.num_dropout_samples=5"),
    ),
    "naive-bayes-head": Technique("every token votes", ("--model.head=naive-bayes",)),
    "closure": Technique("pairs that follow from labels", ("--data.augment=closure",)),
    "no-swap": Technique("texts keep their order", ("--finetune.swap_probability=0",)),
    "pseudo-labels": Technique(
        "a round on its own labels, soft, as many joint steps as the first stage had",
        (
            "--pseudo_labels.rounds=1",
            "--pseudo_labels.kind=soft",
            "--pseudo_labels.training.num_train_epochs=0.24",
            "--pseudo_labels.training.batch_size=32",
            "--pseudo_labels.training.learning_rate=2e-4",
            "--pseudo_labels.training.num_evaluations=1",
            "--pseudo_labels.training.keep=last",
        ),
    ),
    "placeholders": Technique(
        "rare ids as placeholders, min_count 5",
        ("--data.rare=placeholder", "--data.min_count=5"),
    ),
    "min-count-5": Technique("ids seen under 5 times are [UNK]", ("--data.min_count=5",)),
    "no-dropout": Technique(
        "nothing is dropped, in any stage",
        ("--model.hidden_dropout_prob=0", "--model.attention_probs_dropout_prob=0"),
    ),
    "no-masked-tokens": Technique("labels alone", ("--mlm.num_train_epochs=0",)),
}
"""Name to what it changes, those that seem to matter most first."""

QUICK = (
    "--model.hidden_size=16",
    "--model.num_hidden_layers=2",
    "--model.num_attention_heads=2",
    "--model.intermediate_size=32",
    "--machine.num_threads=1",
)


def best_set(helping: Sequence[str]) -> list[str]:
    """Return techniques that can go together: of two that set the same value, the first."""
    chosen: list[str] = []
    taken: set[str] = set()
    for name in helping:
        keys = {option.split("=")[0] for option in TECHNIQUES[name].options}
        if not keys & taken:
            chosen.append(name)
            taken |= keys
    return chosen
