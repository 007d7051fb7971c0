"""Faults of the programs around: training's command, the report, the data tools."""

from tests.mutation.fault import Fault

TRAIN = "test_train_full.py"
REPORT = "test_report.py"
PREPARE = "test_prepare.py"
INPUTS = "test_inputs.py"

FAULTS = [
    Fault("train_full.py", "Settings(seed=arguments.seed)", "Settings()",
          "--seed: every training is the same", TRAIN),
    Fault("train_full.py", "epochs=arguments.epochs or settings.epochs", "epochs=settings.epochs",
          "--epochs", TRAIN),
    Fault("train_full.py", "            init=arguments.init,\n", "", "--init", TRAIN),
    Fault("train_full.py", "hash_prefix=start_of_hash", "hash_prefix=None",
          "the check of the downloaded weights", TRAIN),
    Fault("train_full.py",
          "        with written(out) as temporary:\n"
          "            temporary.write_bytes(buffer.getbuffer())\n",
          "        out.write_bytes(buffer.getbuffer())\n",
          "the old model when the disk is full half-way", TRAIN),
    Fault("train_full.py", "fast_train=False,", "fast_train=True,", "a real training", TRAIN),
    Fault("train_full.py", "parsed.report or parsed.out.parent", "parsed.out.parent",
          "--report", TRAIN),
    Fault("reporting/birds.py", "argmax(1) == self.labels", "argmax(1) != self.labels",
          "right and wrong answers as they are", REPORT),
    Fault("reporting/birds.py", "return self.probabilities.max(1)",
          "return 1 - self.probabilities.max(1)", "how sure the answers are", REPORT),
    Fault("reporting/birds.py", "(x / history.temperature)", "(x * history.temperature)",
          "calibrated probabilities in the report", REPORT),
    Fault("reporting/birds.py", "confusion_matrix(self.labels, self.best,",
          "confusion_matrix(self.best, self.labels,",
          "rows of the confusion matrix that are the true species", REPORT),
    Fault("reporting/birds.py", "(unsure & answers.right).sum()",
          "(unsure & ~answers.right).sum()",
          "the report's count of answers in doubt that are right", REPORT),
    Fault("reporting/birds.py", "(~unsure & ~answers.right).sum()",
          "(~unsure & answers.right).sum()",
          "the report's count of sure answers that are wrong", REPORT),
    Fault("reporting/birds.py", "{most / fewest:.2f}", "{fewest / most:.2f}",
          "the report's factor between species", REPORT),
    Fault("reporting/birds.py", "{100 * frozen / operations:.0f}",
          "{100 * (operations - frozen) / operations:.0f}",
          "the report's share of the frozen blocks", REPORT),
    Fault("birddata/layout.py", '{rows}".encode(errors="surrogateescape")', '{rows}".encode()',
          "names of photos in another encoding", f"{PREPARE} {INPUTS}"),
    Fault("birddata/layout.py", "if len(files) == 1}", "if files}",
          "a name that may mean two photos is left out", INPUTS),
    Fault("birddata/layout.py", 'code != "repeated-row"', 'code == "bad-row"',
          "a word about two class ids for one photo",
          f"{INPUTS}::test_a_photo_may_be_named_twice_but_not_be_two_species"),
    Fault("birddata/samples.py", "CUB_SPECIES, CUB_PHOTOS, CUB_PUBLIC = 50, 60, 50",
          "CUB_SPECIES, CUB_PHOTOS, CUB_PUBLIC = 50, 59, 50",
          "the course's species", PREPARE),
    Fault("birddata/writing.py", "        shutil.rmtree(scratch, ignore_errors=True)\n"
          "        for path in missing:", "        for path in missing:",
          "a clean folder after an interrupt", PREPARE),
]  # fmt: skip
