"""A variant of bench_train.py: a model, and transformers' Trainer around it. Ours is one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from train_work import Job, Machine, RealTokens, Round, packed_tokens, useful_flops
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from desmatch.data.read import column
from desmatch.data.vocabulary import joined
from desmatch.intake import ROLES
from desmatch.model.batch import TrainingBatches, TrainingRows, Vocabularies
from desmatch.model.dropout import use_bank_dropout
from desmatch.prepare import Prepared
from desmatch.recipe import MachineConfig
from desmatch.recipe_training import TrainingConfig
from desmatch.runs import generator, processor_name
from desmatch.train.machine import keep_freed_memory, uses_bf16
from desmatch.train.pretrain import joint_labels, joint_objective, starting_model
from desmatch.train.trainer import StageTrainer
from desmatch.train.validation import ValidationRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BATCH_SIZE = 64
MLM_PROBABILITY = 0.15
LEARNING_RATE = 1e-4
WARMUP_STEPS = 1
"""Steps before the clock starts; they make the optimiser's state."""
CUDA_STEPS = 20
"""Times as many steps, warm-up included, on a GPU."""

CPU_SIZES = (512, 1024, 2048)
CUDA_SIZES = (4096, 8192)
PRODUCTS_IN_A_ROW = 3


def clock(threads: int) -> float:
    """Return seconds: the processor time of one thread, which other work hardly adds to, else wall.

    Work queued on a GPU is waited for.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif threads == 1:
        return time.process_time()
    return time.perf_counter()


def matmul_peak(dtype: torch.dtype, threads: int) -> float:
    """Return FLOPs a second of the best of several products of square matrices."""
    is_cuda = torch.cuda.is_available()
    best = 0.0
    for size in CUDA_SIZES if is_cuda else CPU_SIZES:
        square = torch.ones(size, size, dtype=dtype, device="cuda" if is_cuda else "cpu")
        for _ in range(PRODUCTS_IN_A_ROW):
            started = clock(threads)
            torch.matmul(square, square)
            best = max(best, 2 * size**3 / (clock(threads) - started))
    return best


def machine(threads: int) -> Machine:
    """Measure this machine's matrix products."""
    torch.set_num_threads(threads)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return Machine(device, {name: matmul_peak(dtype, threads) for name, dtype in dtypes.items()})


class Rows(NamedTuple):
    """The drawn rows, and all files' as they came.

    Attributes:
        prepared: All rows.
        chosen: (num_rows,), numbers of the drawn rows, all files laid end to end.
        labels: (num_rows,), int8; UNLABELED where a row has none or is held out.
    """

    prepared: Prepared
    chosen: NDArray[np.int64]
    labels: NDArray[np.int8]

    @classmethod
    def draw(cls, job: Job) -> Rows:
        """Draw whole batches of the prepared rows."""
        prepared = Prepared.load(job.folder / "prepared")
        labels = np.concatenate(
            [joint_labels(prepared, job.recipe.validation.fold)[role] for role in ROLES]
        )
        number = min(job.num_rows, len(labels)) // BATCH_SIZE * BATCH_SIZE
        chosen = generator(0, "benchmark").permutation(len(labels))[:number]
        return cls(prepared, chosen, labels[chosen])

    def texts(self, side: str) -> list[str]:
        """Return the drawn rows' texts as raw ids."""
        columns = [column(self.prepared.rows[role], side) for role in ROLES]
        texts = pa.chunked_array([chunk for each in columns for chunk in each.chunks])
        taken: list[str] = texts.take(self.chosen).to_pylist()
        return taken


class Stopwatch(TrainerCallback):  # type: ignore[misc]
    """Reads the clock after the warm-up and after the last step."""

    def __init__(self, first: int, threads: int) -> None:
        self.first, self.threads = first, threads
        self.readings: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Read the clock where a stretch begins or ends."""
        del control
        if state.global_step in (self.first, args.max_steps):
            self.readings.append(clock(self.threads))

    @property
    def seconds(self) -> float:
        """Between the two readings."""
        first, last = self.readings
        return last - first


class Variant:
    """A model that lives through all rounds, and a Trainer for each.

    Attributes:
        columns: Logits of a predicted token.
        in_bf16: Whether matrix products run in bfloat16.
    """

    columns: int
    in_bf16 = False

    def __init__(self, job: Job, rows: Rows) -> None:
        self.job, self.rows = job, rows
        many = CUDA_STEPS if torch.cuda.is_available() else 1
        self.warmup_steps, self.max_steps = WARMUP_STEPS * many, (WARMUP_STEPS + job.steps) * many

    def trainer(self, arguments: dict[str, Any]) -> Trainer:
        """Return the Trainer of one round."""
        raise NotImplementedError

    def batches(self) -> Sequence[RealTokens]:
        """Return what the batches since the Trainer was made held, in order."""
        raise NotImplementedError

    def run(self, number: int) -> Round:
        """Train a round's steps and return the timed ones."""
        stopwatch = Stopwatch(self.warmup_steps, self.job.threads)
        trainer = self.trainer(
            {
                "output_dir": str(self.job.folder / "trainer"),
                "seed": number,
                "max_steps": self.max_steps,
                "per_device_train_batch_size": BATCH_SIZE,
                "dataloader_drop_last": True,
                "dataloader_pin_memory": False,
                "remove_unused_columns": False,
                "learning_rate": LEARNING_RATE,
                "bf16": self.in_bf16,
                "use_cpu": not torch.cuda.is_available(),
                "logging_strategy": "no",
                "save_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
            }
        )
        trainer.add_callback(stopwatch)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        timed = self.batches()[self.warmup_steps : self.max_steps]
        flops = [useful_flops(self.job.shape, self.columns, tokens) for tokens in timed]
        tokens = sum(int(each.lengths.sum()) for each in timed)
        dtype = "bf16" if self.in_bf16 else "fp32"
        return Round(tokens, sum(flops), stopwatch.seconds, dtype)


class Ours(Variant):
    """The joint stage as `desmatch run` trains it: masked tokens and labels of packed rows."""

    def __init__(self, job: Job, rows: Rows) -> None:
        super().__init__(job, rows)
        self.in_bf16 = uses_bf16(MachineConfig())
        vocabulary = rows.prepared.vocabulary
        self.columns = vocabulary.size
        self.vocabulary = Vocabularies(vocabulary.first_id, vocabulary.size)
        pairs = joined([rows.prepared.encode(role) for role in ROLES]).take(rows.chosen)
        self.training = TrainingRows(pairs, rows.labels)
        self.model, _ = starting_model(rows.prepared, job.recipe)
        keep_freed_memory()
        if not torch.cuda.is_available():
            use_bank_dropout(self.model)

    def trainer(self, arguments: dict[str, Any]) -> Trainer:
        """Return the stage's own Trainer, without validation."""
        config = TrainingConfig(
            num_train_epochs=1000,  # max_steps ends it
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            mlm_probability=MLM_PROBABILITY,
        )
        self.planned = TrainingBatches(
            self.training, config, self.vocabulary, seed=arguments["seed"], stage="pretrained"
        )
        nothing = np.zeros(0, np.int64)
        return StageTrainer(
            self.model,
            TrainingArguments(**{**arguments, "per_device_train_batch_size": 1}),
            batches=self.planned,
            objective=joint_objective(self.model, config.label_weight),
            validation=ValidationRows(self.training.pairs.take(nothing), nothing.astype(np.int8)),
        )

    def batches(self) -> Sequence[RealTokens]:
        """Return what the planned batches hold: they are a function of their number."""
        return [packed_tokens(self.planned[step]) for step in range(self.max_steps)]
