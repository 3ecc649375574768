"""What ours is compared with, and the list of all variants. Shapes: B pairs of L cells."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers.cross_encoder import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from train_variants import BATCH_SIZE, MLM_PROBABILITY, Ours, Rows, Variant
from train_work import Job, RealTokens
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from desmatch.model.batch import UNLABELED
from desmatch.runs import generator, seed_everything

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Peer(Variant):
    """BERT of the same shape and vocabulary, padded to the longest pair of a batch."""

    def __init__(self, job: Job, rows: Rows) -> None:
        super().__init__(job, rows)
        self.seen: list[tuple[Tensor, Tensor]] = []  # of each batch (B, L): is real, is predicted
        self.tokenizer = AutoTokenizer.from_pretrained(job.folder / "prepared")
        layers, width = job.shape
        self.config = BertConfig(
            vocab_size=rows.prepared.vocabulary.size,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=job.shape.heads,
            intermediate_size=4 * width,
            max_position_embeddings=max(job.max_length, 64),
            pad_token_id=self.tokenizer.pad_token_id,
            num_labels=1,
        )
        seed_everything(job.recipe.seed)

    def batches(self) -> Sequence[RealTokens]:
        """Return what was seen since the last call."""
        counted = [[each.sum(1).cpu().numpy() for each in pair] for pair in self.seen]
        self.seen.clear()
        return [RealTokens(lengths, predicted) for lengths, predicted in counted]


class ShuffledTrainer(Trainer):  # type: ignore[misc]
    """Trainer that trains the batches of an epoch in random order.

    transformers deals 50 grouped batches longest first, so a few steps would see long pairs alone.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> list[int]:  # noqa: ANN401
        order = np.array(list(super()._get_train_sampler(train_dataset)))
        batches = order[: len(order) // BATCH_SIZE * BATCH_SIZE].reshape(-1, BATCH_SIZE)
        rng = generator(self.args.seed, "order of batches")
        shuffled: list[int] = rng.permutation(batches).flatten().tolist()
        return shuffled


class MaskedLM(Peer):
    """BertForMaskedLM on masked tokens alone, collated by DataCollatorForLanguageModeling."""

    strategy = "random"

    def __init__(self, job: Job, rows: Rows) -> None:
        super().__init__(job, rows)
        self.columns = self.config.vocab_size
        self.model = BertForMaskedLM(self.config)
        self.collator = DataCollatorForLanguageModeling(
            self.tokenizer, mlm_probability=MLM_PROBABILITY
        )
        encoded = self.tokenizer(
            rows.texts("a"), rows.texts("b"), truncation=True, return_special_tokens_mask=True
        )
        names = list(encoded)
        self.items = [
            dict(zip(names, values, strict=True)) for values in zip(*encoded.values(), strict=True)
        ]

    def trainer(self, arguments: dict[str, Any]) -> Trainer:
        """Return transformers' Trainer."""
        return ShuffledTrainer(
            self.model,
            TrainingArguments(**arguments, train_sampling_strategy=self.strategy),
            train_dataset=self.items,
            data_collator=self.collate,
        )

    def collate(self, items: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Make a batch and keep what tells its real and its predicted tokens."""
        batch: dict[str, Tensor] = self.collator(items)
        self.seen.append((batch["attention_mask"], batch["labels"] >= 0))
        return batch


class GroupedMaskedLM(MaskedLM):
    """The same, pairs of like length together."""

    strategy = "group_by_length"


class GroupedMaskedLMInBF16(GroupedMaskedLM):
    """The same in bfloat16."""

    in_bf16 = True


class FineTunedCrossEncoder(Peer):
    """sentence-transformers' CrossEncoder on the labels of the labelled rows."""

    columns = 1

    def __init__(self, job: Job, rows: Rows) -> None:
        super().__init__(job, rows)
        folder = job.folder / "cross-encoder"
        BertForSequenceClassification(self.config).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.model = CrossEncoder(str(folder), num_labels=1)
        self.model.register_forward_pre_hook(self.look)
        table = Dataset.from_dict(
            {"a": rows.texts("a"), "b": rows.texts("b"), "label": rows.labels.astype(float)}
        )
        self.labelled = table.select(np.flatnonzero(rows.labels != UNLABELED))

    def trainer(self, arguments: dict[str, Any]) -> Trainer:
        """Return sentence-transformers' Trainer."""
        return CrossEncoderTrainer(
            self.model,
            CrossEncoderTrainingArguments(**arguments),
            train_dataset=self.labelled,
            loss=BinaryCrossEntropyLoss(self.model),
        )

    def look(self, _: object, inputs: tuple[dict[str, Tensor]]) -> None:
        """Keep what tells a batch's real tokens; [CLS] is the predicted one."""
        mask = inputs[0]["attention_mask"]
        self.seen.append((mask, mask[:, :1]))


VARIANTS: dict[str, type[Variant]] = {
    "ours": Ours,
    "a": MaskedLM,
    "b": GroupedMaskedLMInBF16,
    "b32": GroupedMaskedLM,
    "c": FineTunedCrossEncoder,
}


@cache
def variant(name: str, job: Job) -> Variant:
    """Return this process's variant, made once."""
    torch.set_num_threads(job.threads)
    return VARIANTS[name](job, Rows.draw(job))
