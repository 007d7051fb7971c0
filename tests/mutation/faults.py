"""The faults: which text becomes which, what a user would lose, which tests should notice."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """A change of an expression that somebody could have made."""

    file: str
    text: str  # stands in the file exactly once, however it is broken into lines
    replacement: str
    lost: str  # what a user would lose
    test: str  # what should notice: a file of tests, ::, a part of the names of tests in it

    def __str__(self) -> str:
        return f"{self.file}: {self.lost}"

    def broken(self, root: Path) -> str:
        """The file's source with the fault in it. Raises ValueError if the text is not there."""
        tokens = [re.escape(token) for token in re.findall(r"\w+|[^\w\s]", self.text)]
        source = (root / self.file).read_text(encoding="utf-8")
        broken, count = re.subn(r"\s*".join(tokens), lambda match: self.replacement, source)
        if count != 1:
            raise ValueError(f"found {count} times, not once: {self.text!r}")
        return broken

    def problem(self, root: Path) -> str | None:
        """Why the fault does not fit a checkout, if so."""
        try:
            self.broken(root)
        except (OSError, ValueError) as error:
            return f"Error: {self}: {error}; correct tests/mutation/faults.py"
        return None


def faults_of(file: str, tests: str, *rows: tuple[str, str, str, str]) -> list[Fault]:
    """Return faults of one file that tests of one file should notice."""
    return [Fault(file, *row, f"{tests}::{test}") for *row, test in rows]


FAULTS = [
    *faults_of(
        "solution.py", "test_training.py",
        ("fit(VALIDATION_RUN, train,", "fit(VALIDATION_RUN, np.r_[train, held_out],",
         "a validation on photos that were not trained on", "validation_photos_have_no_part"),
        ("copy.deepcopy(network)", "network",
         "a final run that starts where the validation run does", "the_final_run_knows"),
        ("fit(FINAL_RUN, np.arange(len(labels))",
         "fit(FINAL_RUN, split_photos(labels.numpy(), 0.2, 0)[0]", "a model trained on all photos",
         "validation_photos_have_no_part"),
        ("random.Random(settings.seed).shuffle(names)", "pass",
         "a fast_train on photos of all species", "fast_train_takes_two"),
        ("whole_only.head = head", "pass", "views of the bird", "boxes_come_from_the_head"),
        ("stratify=of", "stratify=None", "a validation of all species",
         "split_keeps_the_proportions"),
        ("torch.set_default_dtype(torch.float32)", "pass",
         "the same result under another default dtype", "what_the_caller_set"),
        ('torch.device("cpu")', "torch.enable_grad()", "a training under another default device",
         "what_the_caller_set"),
        ("torch.random.fork_rng(devices=[])", "torch.enable_grad()", "the caller's random numbers",
         "what_the_caller_set"),
        ("(ValueError, RuntimeError, ", "(", "one line on weights of something else",
         "weights_of_something_else"),
        ("self.network.load_state_dict(self.average.module.state_dict())", "pass",
         "the averaged weights", "training_is_adamw_and_delivers"),
        ("settings.class_balance * frequencies.log()", "0",
         "species that win whatever their photos' number", "frequent_species_have_no_advantage"),
        ("scheduler.step()", "pass", "learning rates that follow their course",
         "training_is_adamw_and_delivers"),
        ("[settings.seed, epoch]", "[settings.seed]", "another order in each epoch",
         "each_epoch_shows_the_training"),
        ("permutation(train)", "permutation(len(self.sample.labels))",
         "training on the chosen photos alone", "each_epoch_shows_the_training"),
        ("sum(of_chunks)", "of_chunks[0]", "gradients of the whole batch",
         "training_is_adamw_and_delivers"),
        (" epoch {epoch}", "", "fresh views in each epoch", "views_are_fresh_and_depend"),
        ("cast(BirdNet, self.average.module)", "cast(BirdNet, self.network)",
         "a table of the averaged weights", "training_is_adamw_and_delivers"),
        ("settings.cutmix", "0.0", "the CutMix that was set", "the_loss_is_cross"),
        ("targets.lerp(targets.flip(0), share)", "targets.lerp(targets.flip(0), 0.5)",
         "targets that follow the area", "cutmix_mixes_targets_by_the_area"),
        ("settings.layer_decay**above", "1", "slower early blocks",
         "learning_rates_fall_from_block"),
        ("(weight.ndim > 1)", "1", "norms and biases that do not decay",
         "learning_rates_fall_from_block"),
        ("(step + 1) / (warmup + 1)", "1", "the warm-up", "learning_rates_rise_in_the_warmup"),
        ('norm["running_mean"] * scale', "0", "batch norm's means",
         "folded_blocks_equal_the_plain"),
        ("::stride, ::stride", "1::stride, 1::stride", "gradients of blocks with stride",
         "folded_blocks_equal_the_plain"),
    ),
    *faults_of(
        "solution.py", "test_views.py",
        ("self.is_confident(logits)", "False", "as many views as a photo needs",
         "it_stops_as_soon"),
        ("shares[p] / parts.count(p)", "shares[p]", "the stages' shares", "whole_photo_and_crop"),
        ("antialias=True", "antialias=False", "smooth downscaling", "a_larger_photo_is_averaged"),
        ('2 * preprocessing["box_margin"]', "0", "a margin around the bird", "the_box_is_the_blob"),
        ("min(height, width) < TINY or", "", "tiny photos whole", "a_tiny_photo_is_seen"),
        ("(grown > 0) & above", "above", "a crop of the brightest region alone",
         "the_box_is_the_blob"),
        ("min(2, max(height, width) / min(height, width))", "1",
         "whole photos that are not distorted", "the_whole_photo_is_hardly"),
    ),
    *faults_of(
        "solution.py", "test_classify.py",
        ("view.flip(2) if mirrored else view", "view", "mirror images",
         "answers_are_those_of_the_plain"),
        ('photo.draft("RGB", (side, side))', "pass", "large photos in little memory",
         "a_huge_jpeg_is_decoded"),
        ("ImageOps.exif_transpose(photo)", "photo", "upright photos",
         "exif_orientation_is_applied"),
        ("255 / white", "255 / top", "the brightness of deep photos", "more_than_eight_bits"),
        ("if may_be_photo(path.name)", "", "answers for photos alone", "every_file_that_may"),
        ("torch.set_num_threads(count)", "pass", "the caller's threads",
         "a_prediction_depends_on_its_photo"),
        ("classifier.fallback_class", "classifier.class_ids[0]",
         "the likeliest answer for what cannot be decoded", "what_cannot_be_decoded"),
        ("logits / self.temperature", "logits", "calibrated probabilities",
         "further_views_are_left"),
    ),
    *faults_of(
        "solution.py", "test_checkpoint.py",
        ("weights_only=True", "weights_only=False", "a load that executes nothing",
         "damaged_files_give_one"),
        ("not v.isfinite().all()", "False", "a model without broken weights",
         "what_is_not_it_gives"),
        ("(FORMAT, FORMAT_VERSION)", '(FORMAT, checkpoint.get("format_version"))',
         "one line on a model of another version", "what_is_not_it_gives"),
        ("**network.metadata", "**{}", "a calibrated model", "metadata_replaces_what_is_not"),
    ),
    *faults_of(
        "train_full.py", "test_train_full.py",
        ("Settings(**changes(options.set))", "Settings()", "--set and --init",
         "the_checkpoint_says_how"),
        ("atomic_write(out) as temporary", "contextlib.nullcontext(out) as temporary",
         "the old model on a full disk", "an_interrupt_or_a_full"),
        ("layout.photo_digests(photos)", '""', "photos that are known again",
         "the_checkpoint_says_how"),
        ("hash_prefix=start_of_hash", "hash_prefix=None", "weights that are checked",
         "half_a_checkpoint_in_the_cache"),
    ),
    *faults_of(
        "grader/rules.py", "test_grader_rules.py",
        ('"/dev/nvidia"', '"/dev/none"', "no accelerator by NVIDIA",
         "forbidden_calls_raise_and_are_reported"),
        ("| os.O_CREAT | os.O_TRUNC", "", "no file by a read-only descriptor",
         "forbidden_calls_raise_and_are_reported"),
        ("(2, 10, 23, 30)", "(2,)", "no internet by IPv6", "connections_beyond_this_machine"),
        ("path.startswith(name)", "path == name", "no file in a folder that the submission names",
         "under_a_name_that_the_submission"),
        ('origin["kind"] == DIRECT and', "False and",
         "a verdict on a file that it tries to write", "forbidden_calls_raise_and_are_reported"),
        ('code.co_name == "<module>"', "False",
         "libraries that may look around while they are imported", "a_library_that_is_imported"),
    ),
    *faults_of(
        "benchmarks/folds.py", "test_folds.py",
        ('"balanced"', "None", "accuracy by species", "all_species_count_alike"),
        ("of_photos + of_seeds", "of_photos", "standard errors that cover seeds",
         "seeds_that_differ_add"),
        ("random_state=0", "", "the same folds every time", "the_folds_are_the_whole"),
    ),
    *faults_of(
        "course/marks.py", "test_course.py",
        ("0.86, 0.88", "0.86, 0.87", "the assignment's marks", "table_is_the_one"),
        ("bisect_right", "bisect_left", "the mark at its threshold", "both_sides_of_a_threshold"),
        ('"wilson"', '"exact"', "the interval that is named", "wilson_interval_against_published"),
    ),
    *faults_of(
        "course/files.py", "test_course.py",
        ("temporary.replace(target)", "shutil.copyfile(temporary, target)",
         "the old file until the new one is whole", "who_holds_the_old"),
        ("_remove(folder)", "pass", "folders without left-over files", "a_file_is_replaced"),
    ),
    *faults_of(
        "course/tables.py", "test_inputs.py",
        ("len(files) == 1", "files", "no label for a photo that may be another",
         "names_match_where_only"),
        ('.decode(codec, "replace")', '.decode("latin-1", "replace")',
         "names from a Russian Windows", "names_of_species_in_another"),
    ),
    *faults_of(
        "birddata/sources.py", "test_archives.py",
        ('".." in parts', "False", "files inside the folder alone", "a_name_that_leads"),
        ('or rest.strip(b"\\0")', "", "archives that are whole", "what_is_no_whole"),
    ),
    *faults_of(
        "public_data/prepare.py", "test_prepare.py",
        ('"01_holdout", train', '"01_holdout", train + held', "a holdout that is not trained on",
         "holdout_photos_are_kept"),
        ("digest_of(photo.path, 64)", "photo.name", "a holdout without copies",
         "holdout_leaves_out_copies"),
    ),
    *faults_of(
        "reporting/calibration.py", "test_calibration.py",
        ("(logits / temperature)", "logits", "thresholds for `classify`",
         "metadata_is_what_classify"),
        ("correct(threshold) >= enough", "True", "the accuracy of all views",
         "early_exit_lies_above"),
        ("/ math.exp(log_temperature)", "* math.exp(log_temperature)", "calibrated probabilities",
         "temperature_makes_confidence_agree"),
    ),
    *faults_of(
        "reporting/report.py", "test_report.py",
        (">= LEAST_CONFUSIONS", "> 0", "look-alikes that are no freaks",
         "look_alikes_are_confused"),
        ("autoescape=True", "autoescape=False", "names that are no markup", "names_are_no_markup"),
    ),
    *faults_of(
        "grader/session.py", "test_grader_run.py",
        ("result.outcome.failure = Failure(CHECK, str(error))", "pass", "a failed check that fails",
         "true_labels_of_an_old"),
        ('{"status": RUNTIME_ERROR}', '{"status": "Ok, accuracy 1.0000"}', "no pass without a run",
         "results_are_there_whatever_ends"),
    ),
    *faults_of(
        "grader/session.py", "test_grader_run.py",
        ('read_csv(test.gt / "gt.csv")', 'read_csv(test.check / "gt" / "gt.csv")',
         "true labels of this test", "true_labels_of_an_old"),
        ("output.unlink(missing_ok=True)", "pass", "an answer of this run",
         "an_old_answer_is_not"),
    ),
    *faults_of(
        "grader/sandbox.py", "test_grader_rules.py",
        ('"--unshare-net", ', "", "a box without network", "the_sandbox_has_nothing"),
        ('("/dev", *hidden)', "hidden", "a read-only box", "the_sandbox_has_nothing"),
    ),
    *faults_of(
        "coursework/engine.py", "test_coursework_engine.py",
        ("self.current_epoch, ", "", "random numbers of each epoch", "an_epoch_has_its_own"),
        ("recipe.learning_rate * recipe.backbone_rate", "recipe.learning_rate", "a slow backbone",
         "the_backbone_gets_its_share"),
        ("if before.get(name) != now[name]", "if False", "no result of other settings",
         "a_folder_with_another"),
    ),
    Fault("solution.py", "= True, None", "= False, None", "what is there of a truncated photo",
          "test_inputs.py::classify_answers_every_kind"),
    Fault("grader/session.py", "truth.keys() - answer.keys()", "answer.keys() - truth.keys()",
          "an error where an answer is missing",
          "test_grader_run.py::check_counts_rows_of_the_truth"),
    Fault("course/layout.py", "sorted(labels.items())", "labels.items()", "rows in order",
          "test_course.py::csv_is_written_sorted"),
    Fault("birddata/dataset_check.py", "0.28", "0.01", "altered copies",
          "test_dataset_check.py::altered_copies_are_found"),
    Fault("birddata/dataset_check.py", "min(width, height) < MIN_SIDE", "False",
          "tiny photos", "test_dataset_check.py::one_kind"),
    Fault("birddata/samples.py", "random.Random(seed)", "random.Random(0)",
          "another sample for each seed", "test_prepare.py::the_seed_decides_which_photos"),
    Fault("birddata/writing.py", "(out / name).rename, built / name", "str", "all tests or none",
          "test_prepare.py::a_failing_rename_takes"),
    Fault("birddata/drawn_sample.py", "[seed, class_id, number]", "[class_id, number]",
          "another sample for each seed", "test_drawn_sample.py::the_seed_decides_every"),
    Fault("reporting/charts.py", "matrix.sum(1,", "matrix.sum(0,", "shares of the true species",
          "test_report.py::a_confusion_stands_in_the_row"),
    Fault("reporting/drawing.py", "(left, top, right - 1, bottom - 1)",
          "(top, left, bottom - 1, right - 1)", "a frame around the crop",
          "test_predict.py::the_frame_on_the_photo"),
    Fault("predict.py", "best[0][0] < threshold", "best[0][0] > threshold",
          "a warning where it is uncertain", "test_predict.py::what_the_checkpoint_says"),
    Fault("grader/process.py", 'self.phase.verdict = "over time"', "pass",
          "the phase that ran out of time", "test_grader_run.py::a_phase_that_ran"),
    Fault("grader/supervisor.py", "pass kill_descendants()", "pass",
          "no process that is left behind", "test_grader_run.py::a_killed_grader_leaves"),
    Fault("grader/staging.py", "n.upper().startswith(KEPT)", "True",
          "a run without this machine's variables", "test_grader_run.py::a_run_finds_nothing"),
    Fault("grader/report.py", "-pairs[row[1:]]", "0", "the most frequent confusions first",
          "test_grader_run.py::the_most_frequent_confusions"),
    Fault("grader/report.py", "or metadata.trained_photos(last.test) == set()", "",
          "the accuracy itself on new photos", "test_grader_report.py::photos_kept_out_count"),
    Fault("run_tests.py", "< options.require", "> options.require", "--require",
          "test_grader_run.py::below_a_required_accuracy"),
]  # fmt: skip
