"""Faults of the courseworks: training, data, networks, reports, command line."""

from tests.mutation.fault import Fault

ENGINE = "test_coursework_engine.py"
DATA = "test_coursework_data.py"
REPORTS = "test_coursework_reports.py"
NETWORKS = "test_coursework_networks.py"
EPOCHS = f"{ENGINE}::test_an_epoch_has_its_own_order_and_random_numbers"
GOES_ON = f"{ENGINE}::test_an_interrupted_run_goes_on_to_the_same_numbers"
REFUSED = f"{ENGINE}::test_a_folder_with_another_run_is_refused"
RATES = f"{ENGINE}::test_rates_follow_the_schedules"

FAULTS = [
    Fault("coursework/engine.py", "seed=seed, drop_last=True",
          "seed=seed, shuffle=False, drop_last=True",
          "photos in another order each epoch", EPOCHS),
    Fault("coursework/engine.py", "(self.recipe.seed, self.current_epoch, self.global_rank)",
          "(self.recipe.seed, self.global_rank)", "random numbers of each epoch's own", EPOCHS),
    Fault("coursework/engine.py",
          "torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))", "del parts",
          "the same augmentation and dropout after an interrupt", GOES_ON),
    Fault("coursework/engine.py", 'checkpoint["rows"] = self.rows', 'checkpoint["rows"] = []',
          "the epochs before an interrupt", GOES_ON),
    Fault("coursework/engine.py", "if not trainer.interrupted:", "if True:",
          "130 and 143 after a signal", GOES_ON),
    Fault("coursework/engine.py", "if before.get(name) != now[name]", "if False",
          "a refusal of a run with other settings", REFUSED),
    Fault("coursework/engine.py", "max(1, steps // 2)", "max(1, steps // 4)",
          "cuts at a half of the steps", RATES),
    Fault("coursework/engine.py", '(recipe.learning_rate * recipe.backbone_rate, ',
          '(recipe.learning_rate, ', "smaller steps for pretrained blocks",
          f"{ENGINE}::test_the_backbone_gets_its_share_of_the_rate"),
    Fault("coursework/engine.py", "slice(self.global_rank, None, self.trainer.world_size)",
          "slice(0, None, self.trainer.world_size)", "measures over all processes' photos",
          f"{ENGINE}::test_two_processes_see_the_same_photos_and_measure_all_of_them"),
    Fault("coursework/engine.py", "return self.loader(self.run.data.watched)",
          "return self.loader(self.run.data.test)", "test photos that decide nothing",
          f"{ENGINE}::test_validation_photos_are_watched_and_not_test_photos"),
    Fault("coursework/data.py", "Photos(test.inputs, numbers[test.labels])",
          "Photos(test.inputs, test.labels)", "the classes' numbers in the test folder",
          f"{DATA}::test_classes_of_the_test_are_numbered_as_those_of_the_training"),
    Fault("coursework/data.py", "[kept.index(label) for label in labels]", "labels",
          "numbers of classes without gaps",
          f"{DATA}::test_classes_without_a_readable_photo_are_named_and_left_out"),
    Fault("coursework/pages.py", "return 2 * math.sqrt(", "return math.sqrt(",
          "verdicts that allow for chance",
          f"{REPORTS}::test_a_difference_counts_from_two_standard_errors_on"),
    Fault("coursework/pages.py", "after.final[\"test_acc\"] - before.final[\"test_acc\"]",
          "before.final[\"test_acc\"] - after.final[\"test_acc\"]", "the sign of a verdict",
          f"{REPORTS}::test_a_difference_counts_from_two_standard_errors_on"),
    Fault("coursework/charts.py", "return before + np.cumsum(steps)", "return np.cumsum(steps)",
          "curves that go on where the first ended",
          f"{REPORTS}::test_a_continued_curve_begins_where_the_first_one_ended"),
    Fault("coursework/case/__init__.py", 'result.rows[-1]["val_loss"]', 'result.final["test_loss"]',
          "a length chosen on validation photos",
          f"{REPORTS}::test_case_chooses_the_length_on_validation_data"),
    Fault("coursework/transfer/__init__.py", "module.eval()",
          "pass", "batch norms of frozen blocks",
          f"{NETWORKS}::test_what_is_frozen_stays_bit_equal_and_the_rest_learns"),
    Fault("coursework/transfer/__init__.py", ".sum(1, keepdim=True)", ".mean(1, keepdim=True)",
          "grey photos with the activations of colour ones",
          f"{NETWORKS}::test_one_channel_gives_what_three_equal_channels_give"),
    Fault("coursework/resnet/__init__.py", "else comparison.sign == step.story",
          "else comparison.sign != step.story", "agreement with the story",
          f"{REPORTS}::test_resnet_agrees_with_the_story_only_beyond_chance"),
    Fault("coursework/ladder/__init__.py", "round(length * side / min(photo.size))", "side",
          "a new photo's own proportions", f"{NETWORKS}::test_a_new_photo_keeps_its_proportions"),
]  # fmt: skip
