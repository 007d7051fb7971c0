"""Faults of the courseworks: training, data, networks, reports, command line."""

from tests.mutation.fault import Fault

ENGINE = "test_coursework_engine.py"
DATA = "test_coursework_data.py"
REPORT = "test_coursework_report.py"
COMMAND = "test_coursework.py"
EPOCHS = f"{ENGINE}::test_an_epoch_has_its_own_order_and_random_numbers_which_follow_the_seed"
RATES = f"{ENGINE}::test_the_rate_of_an_epoch_is_that_of_its_last_step"
DECAY = f"{ENGINE}::test_weights_decay_by_the_rate_and_the_share_that_were_set"
OTHERS = f"{ENGINE}::test_a_folder_with_a_run_on_other_pixels_is_refused"
MEASURES = f"{ENGINE}::test_the_last_measures_are_those_of_the_network"
TWO = f"{ENGINE}::test_two_processes_see_the_same_photos_and_measure_all_of_them"
VERDICT = f"{REPORT}::test_a_verdict_turns_at_two_standard_errors"
CHECKED = f"{REPORT}::test_the_self_check_counts_what_is_there"

FAULTS = [
    Fault("coursework/engine.py", "trainer.global_rank, seed=seed, drop_last=True",
          "trainer.global_rank, shuffle=False, drop_last=True",
          "photos in another order each epoch", EPOCHS),
    Fault("coursework/engine.py", "trainer.global_rank, seed=seed, drop_last=True",
          "trainer.global_rank, drop_last=True", "another order with another seed", EPOCHS),
    Fault("coursework/engine.py", "(self.recipe.seed, self.current_epoch, self.global_rank)",
          "(self.recipe.seed, self.global_rank)",
          "dropout and augmentation that differ from epoch to epoch", EPOCHS),
    Fault("coursework/engine.py",
          "torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))", "del parts",
          "the same dropout and augmentation after an interrupt",
          f"{ENGINE}::test_an_interrupted_run_ends_with_the_same_bits"),
    Fault("coursework/engine.py", '.param_groups[-1]["lr"]', '.param_groups[0]["lr"]',
          "the learning rate that is reported: the backbone's instead of the head's",
          f"{ENGINE}::test_the_rate_that_is_told_is_the_heads"),
    Fault("coursework/engine.py", "[epoch * batches for epoch in recipe.milestones]",
          "list(recipe.milestones)", "milestones that are epochs, not steps", RATES),
    Fault("coursework/engine.py", '"monitor": "val_loss"', '"monitor": "val_accuracy"',
          "a plateau that watches the loss",
          f"{ENGINE}::test_a_falling_loss_is_no_plateau_whatever_the_accuracy_does"),
    Fault("coursework/engine.py", "momentum=recipe.momentum, weight_decay=decay",
          "momentum=recipe.momentum", "weight decay", DECAY),
    Fault("coursework/engine.py",
          "[part.digest for part in (self.data.train, self.data.watched, self.data.test)]",
          "[len(part) for part in (self.data.train, self.data.watched, self.data.test)]",
          "a run's identity: its photos' pixels", OTHERS),
    Fault("coursework/engine.py", "(self.data.train, self.data.watched, self.data.test)]",
          "(self.data.train, self.data.test)]",
          "a run's identity: the validation photos", OTHERS),
    Fault("coursework/engine.py", "self.loss.update(loss.detach().expand(len(labels)))",
          "self.loss.update(loss.detach())", "a mean loss over photos, not over batches",
          f"{ENGINE}::test_each_photo_counts_once_in_a_mean_over_batches_of_different_sizes"),
    Fault("coursework/engine.py",
          "slice(self.trainer.global_rank, None, self.trainer.world_size)",
          "slice(0, None, self.trainer.world_size)",
          "measures of all photos, not of the first process's", TWO),
    Fault("coursework/engine.py", '("test", data.test)', '("test", data.watched)',
          "the final measure of photos that decided nothing", MEASURES),
    Fault("coursework/engine.py", "    network.eval()\n    return torch.cat",
          "    network.train()\n    return torch.cat",
          "measures and answers without dropout", f"{ENGINE}::test_measures_are_without_dropout"),
    Fault("coursework/engine.py",
          "    with atomic_write(path) as temporary:\n"
          "        temporary.write_bytes(buffer.getbuffer())\n",
          "    path.write_bytes(buffer.getbuffer())\n",
          "the last whole epoch when a process is killed as it writes",
          f"{ENGINE}::test_a_killed_process_ends_with_the_same_bits_and_leaves_nothing"),
    Fault("coursework/options.py", "if holds != assignment:", "if False:",
          "results of one assignment in a folder",
          f"{COMMAND}::test_results_of_another_assignment_are_refused"),
    Fault("coursework/__main__.py", "if allowed and parsed.language not in allowed:", "if False:",
          "a clear word about a language that an assignment lacks",
          f"{COMMAND}::test_wrong_calls_are_refused"),
    Fault("coursework/data.py", "train_size=first, stratify=labels, ", "train_size=first, ",
          "every class in every part", DATA),
    Fault("coursework/data.py", "if pixels.shape[-1] >= side:", "if pixels.shape[-1] == side:",
          "photos that are never made smaller", DATA),
    Fault("coursework/data.py", "v2.functional.rgb_to_grayscale(photos.inputs)",
          "photos.inputs[:, :1]", "grey photos: they are the red channel",
          f"{DATA}::test_grey_photos_have_one_channel"),
    Fault("coursework/data.py", "pixels = self.train.inputs[:10_000].float() / 255",
          "pixels = self.test.inputs[:10_000].float() / 255",
          "normalisation that knows no test photo",
          f"{DATA}::test_the_statistics_are_those_of_the_training_photos"),
    Fault("coursework/pretrained.py", "adapt_input_conv(1, conv.weight.detach())",
          "conv.weight.detach().mean(1, keepdim=True)",
          "grey photos with the activations of colour ones",
          "test_coursework_transfer.py::"
          "test_a_grey_photo_gives_the_activations_of_its_three_channel_copy"),
    Fault("coursework/case_measures.py", "for labels in (WITH, WITHOUT))",
          "for labels in (WITHOUT, WITH))", "the sign of what dropout does",
          "test_coursework_case.py::test_mean_and_deviation_over_three_seeds_by_hand"),
    Fault("coursework/report.py", '"no" if missing or not blocks else "yes"',
          '"no" if not blocks else "yes"', "an unfinished point is not said to be answered",
          CHECKED),
    Fault("coursework/report.py", "title if answer == truth else", "title if answer != truth else",
          "the truth beside wrong answers",
          f"{REPORT}::test_a_wrong_answer_stands_beside_the_truth"),
    Fault("coursework/report.py",
          "        after.final[f\"{kind}_accuracy\"] - before.final[f\"{kind}_accuracy\"]\n",
          "        before.final[f\"{kind}_accuracy\"] - after.final[f\"{kind}_accuracy\"]\n",
          "the sign of a verdict", VERDICT),
    Fault("coursework/report.py", "return 2 * math.sqrt(2 * p", "return math.sqrt(2 * p",
          "verdicts that allow for chance: two standard errors", VERDICT),
    Fault("coursework/report.py", 'getattr(row, f"val_{value}")', "getattr(row, value)",
          "curves of the watched photos",
          f"{REPORT}::test_all_plots_have_the_same_axes_and_a_run_one_colour"),
    Fault("coursework/report.py", "Phrases(assignment.name, options.language)",
          'Phrases(assignment.name, "en")', "reports in the language that was asked for", CHECKED),
]  # fmt: skip
